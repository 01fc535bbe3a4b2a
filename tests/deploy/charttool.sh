#!/bin/sh
# Prints the path of charttool (tests/deploy/charttool), building it once, by the oldest Go that will do: Debian 12's 1.19. It is not
# optimised: that would take half a minute longer.
set -eu
# shellcheck source=tests/go_program.sh
. "$(dirname "$0")/../go_program.sh"
source=$(cd "$(dirname "$0")/charttool" && pwd)
version=$(cat "$source/main.go" "$source/go.mod" | cksum | cut -d' ' -f1)
go_program charttool "$version" "" "$source" build -trimpath -gcflags='all=-N -l' -ldflags='-s -w' -o @ .
