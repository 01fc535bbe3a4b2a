#!/bin/sh
# Prints the path of a cnitool (the CNI project's own runtime on the command line), building it once: cnitool.sh [VERSION]. Debian
# 12's Go 1.19 builds v1.1.2 at most; from Go 1.21 a version that knows gc and status. CNITOOL=PATH in the environment names a ready
# one instead.
set -eu
# shellcheck source=tests/go_program.sh
. "$(dirname "$0")/go_program.sh"

if [ -n "${CNITOOL:-}" ] && [ $# = 0 ]; then
	[ -x "$CNITOOL" ] || { echo "cnitool.sh: CNITOOL=$CNITOOL is no program" >&2; exit 1; }
	echo "$CNITOOL"
	exit
fi

old=v1.1.2 new=v1.3.0
version=${1:-}
if [ -z "$version" ]; then
	# "go version go1.19.8 linux/amd64"; without Go, what was built before will do.
	minor=$(go version 2>/dev/null | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p')
	if [ -z "$minor" ]; then
		[ -x "$go_cache/cnitool-$new" ] && version=$new || version=$old
	elif [ "$minor" -ge 21 ]; then
		version=$new
	else
		version=$old
	fi
fi
go_program cnitool "$version" "A ready cnitool can be named in CNITOOL" / install "github.com/containernetworking/cni/cnitool@$version"
