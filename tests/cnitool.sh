#!/bin/sh
# Prints the path of a cnitool (the CNI project's own runtime on the command line), building it once into a cache outside the
# checkout: cnitool.sh [VERSION]. Debian 12's Go 1.19 builds v1.1.2 at most; from Go 1.21 a version that knows gc and status.
# CNITOOL=PATH in the environment names a ready one instead. Several may run at once.
set -eu

if [ -n "${CNITOOL:-}" ] && [ $# = 0 ]; then
	[ -x "$CNITOOL" ] || { echo "cnitool.sh: CNITOOL=$CNITOOL is no program" >&2; exit 1; }
	echo "$CNITOOL"
	exit
fi

old=v1.1.2 new=v1.3.0
export HOME="${HOME:-/root}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
version=${1:-}
if [ -z "$version" ]; then
	# "go version go1.19.8 linux/amd64"; without Go, what was built before will do.
	minor=$(go version 2>/dev/null | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p')
	if [ -z "$minor" ]; then
		[ -x "$cache/cnitool-$new" ] && version=$new || version=$old
	elif [ "$minor" -ge 21 ]; then
		version=$new
	else
		version=$old
	fi
fi
program=$cache/cnitool-$version
if [ ! -x "$program" ]; then
	command -v go >/dev/null ||
		{ echo "cnitool.sh: there is no Go to build cnitool $version with: run make deps, or name a cnitool in CNITOOL" >&2; exit 1; }
	mkdir -p "$cache"
	exec 9>"$cache/cnitool.lock"
	flock 9
fi
if [ ! -x "$program" ]; then
	folder=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$folder"' EXIT
	if ! (cd / && CGO_ENABLED=0 GOFLAGS='' GOWORK=off GO111MODULE=on GOTOOLCHAIN=local GOBIN=$folder \
		GOCACHE=${GOCACHE:-$cache/go-build} go install "github.com/containernetworking/cni/cnitool@$version") >"$folder/log" 2>&1 9>&-; then
		sed 's/^/    /' "$folder/log" >&2
		echo "cnitool.sh: cannot build cnitool $version with $(go version); it is fetched by the Go module proxy" \
			"($(go env GOPROXY)): is there a network? A ready cnitool can be named in CNITOOL" >&2
		exit 1
	fi
	mv "$folder/cnitool" "$program"
fi
echo "$program"
