#!/bin/sh
# Prints the path of judge (judge/main.go: the libraries by which containerd and CRI-O load network configurations), building it once.
# JUDGE=PATH in the environment names a ready one instead.
set -eu
# shellcheck source=tests/go_program.sh
. "$(dirname "$0")/../go_program.sh"

if [ -n "${JUDGE:-}" ]; then
	[ -x "$JUDGE" ] || { echo "judge.sh: JUDGE=$JUDGE is no program" >&2; exit 1; }
	echo "$JUDGE"
	exit
fi

source=$(cd "$(dirname "$0")/judge" && pwd)
version=$(cat "$source/main.go" "$source/go.sum" | cksum | tr ' ' -)
go_program judge "$version" "A ready one can be named in JUDGE" "$source" build -o @ .
