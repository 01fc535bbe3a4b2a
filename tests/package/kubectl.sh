#!/bin/sh
# Prints the path of kubectl (tests/package/kubectl), building it once, by the oldest Go that will do: Debian 12's 1.19. It is not
# optimised: that would take minutes longer.
set -eu
# shellcheck source=tests/go_program.sh
. "$(dirname "$0")/../go_program.sh"
source=$(cd "$(dirname "$0")/kubectl" && pwd)
version=$(cat "$source/main.go" "$source/go.mod" | cksum | cut -d' ' -f1)
go_program kubectl "$version" "" "$source" build -trimpath -gcflags='all=-N -l' -ldflags='-s -w' -o @ .
