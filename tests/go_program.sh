# shellcheck shell=sh
# Sourced by the scripts that print the path of a program of Go's that tests need: each is built once, into a cache outside the
# checkout. Several may run at once.
#
#   go_cache            the cache's folder
#   go_program NAME VERSION REMEDY FOLDER ARGUMENTS...
#                       builds NAME by `go ARGUMENTS` in FOLDER, unless the cache has it in that version; prints its path. An "@"
#                       among the arguments stands for where the program is to be put. REMEDY: a sentence on what else a person
#                       can do where there is no Go or no network, "" for none.

export HOME="${HOME:-/root}"
go_cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni

go_program() (
	name=$1 version=$2 remedy=$3 source=$4 program=$go_cache/$1-$2
	shift 4
	if [ ! -x "$program" ]; then
		command -v go >/dev/null || { echo "there is no Go to build $name $version with: run make deps${remedy:+. $remedy}" >&2; exit 1; }
		mkdir -p "$go_cache"
		exec 9>"$program.lock"
		flock 9
	fi
	if [ ! -x "$program" ]; then
		folder=$(mktemp -d "$go_cache/build.XXXXXX")
		trap 'rm -rf "$folder"' EXIT
		for argument; do
			shift
			[ "$argument" != @ ] || argument=$folder/$name
			set -- "$@" "$argument"
		done
		if ! (cd "$source" && CGO_ENABLED=0 GOFLAGS='' GOWORK=off GO111MODULE=on GOTOOLCHAIN=local GOBIN=$folder \
			GOCACHE=${GOCACHE:-$go_cache/go-build} go "$@") >"$folder/log" 2>&1 9>&-; then
			sed 's/^/    /' "$folder/log" >&2
			echo "cannot build $name $version with $(go version); its modules come from the Go module proxy" \
				"($(go env GOPROXY)): is there a network?${remedy:+ $remedy}" >&2
			exit 1
		fi
		mv "$folder/$name" "$program"
	fi
	echo "$program"
)
