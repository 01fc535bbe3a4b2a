#!/bin/sh
# Prints the path of judge (judge/main.go: the libraries by which containerd and CRI-O load network configurations), building it once
# into a cache outside the checkout. Several may run at once. JUDGE=PATH in the environment names a ready one instead.
set -eu

if [ -n "${JUDGE:-}" ]; then
	[ -x "$JUDGE" ] || { echo "judge.sh: JUDGE=$JUDGE is no program" >&2; exit 1; }
	echo "$JUDGE"
	exit
fi

source=$(cd "$(dirname "$0")/judge" && pwd)
export HOME="${HOME:-/root}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
program=$cache/judge-$(cat "$source/main.go" "$source/go.sum" | cksum | tr ' ' -)
if [ ! -x "$program" ]; then
	command -v go >/dev/null ||
		{ echo "judge.sh: there is no Go to build the judge with: run make deps, or name one in JUDGE" >&2; exit 1; }
	mkdir -p "$cache"
	exec 9>"$cache/judge.lock"
	flock 9
fi
if [ ! -x "$program" ]; then
	folder=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$folder"' EXIT
	cp "$source"/* "$folder"
	if ! (cd "$folder" && CGO_ENABLED=0 GOFLAGS='' GOWORK=off GO111MODULE=on GOTOOLCHAIN=local \
		GOCACHE=${GOCACHE:-$cache/go-build} go build -o judge .) >"$folder/log" 2>&1 9>&-; then
		sed 's/^/    /' "$folder/log" >&2
		echo "judge.sh: cannot build the judge with $(go version); its modules are fetched by the Go module proxy" \
			"($(go env GOPROXY)): is there a network? A ready one can be named in JUDGE" >&2
		exit 1
	fi
	mv "$folder/judge" "$program"
fi
echo "$program"
