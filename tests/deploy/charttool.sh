#!/bin/sh
# Prints the path of charttool (tests/deploy/charttool), building it once into a cache outside the checkout, by the oldest Go that
# will do: Debian 12's 1.19. It is not optimised: that would take half a minute longer. Several may run at once.
set -eu
source=$(cd "$(dirname "$0")/charttool" && pwd)
export HOME="${HOME:-/root}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
program=$cache/charttool-$(cat "$source/main.go" "$source/go.mod" | cksum | cut -d' ' -f1)
if [ ! -x "$program" ]; then
	command -v go >/dev/null || { echo "charttool.sh: there is no Go to build charttool with: run make deps" >&2; exit 1; }
	mkdir -p "$cache"
	exec 9>"$cache/charttool.lock"
	flock 9
fi
if [ ! -x "$program" ]; then
	folder=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$folder"' EXIT
	if ! (cd "$source" && CGO_ENABLED=0 GOFLAGS='' GOWORK=off GO111MODULE=on GOTOOLCHAIN=local \
		GOCACHE=${GOCACHE:-$cache/go-build} go build -trimpath -gcflags='all=-N -l' -ldflags='-s -w' -o "$folder/charttool" .) >"$folder/log" 2>&1 9>&-; then
		sed 's/^/    /' "$folder/log" >&2
		echo "charttool.sh: cannot build charttool with $(go version); its modules come from the Go module proxy" \
			"($(go env GOPROXY)): is there a network?" >&2
		exit 1
	fi
	mv "$folder/charttool" "$program"
fi
echo "$program"
