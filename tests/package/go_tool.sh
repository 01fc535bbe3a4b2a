#!/bin/sh
# Prints the path of a program that is built by the Go module proxy, once, into a cache outside the checkout:
# go_tool.sh NAME PACKAGE@VERSION.
set -eu
name=$1 package=$2
export HOME="${HOME:-/root}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
program=$cache/$name-${package##*@}
mkdir -p "$cache"
exec 9>"$program.lock"
flock 9
if [ ! -x "$program" ]; then
	folder=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$folder"' EXIT
	if ! (cd / && CGO_ENABLED=0 GOFLAGS='' GOWORK=off GO111MODULE=on GOTOOLCHAIN=local GOBIN=$folder \
		GOCACHE=${GOCACHE:-$cache/go-build} go install "$package") >"$folder/log" 2>&1 9>&-; then
		sed 's/^/    /' "$folder/log" >&2
		echo "go_tool.sh: cannot build $package with $(go version)" >&2
		exit 1
	fi
	mv "$folder/$name" "$program"
fi
echo "$program"
