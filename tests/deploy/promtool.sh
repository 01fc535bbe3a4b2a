#!/bin/sh
# Prints the path of promtool: that of the machine, or the one in Debian's package prometheus, which is unpacked into a cache and
# not installed, because installing it would start a server. Several may run at once.
set -eu
if command -v promtool; then
	exit
fi
export HOME="${HOME:-/root}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
program=$cache/promtool
if [ ! -x "$program" ]; then
	mkdir -p "$cache"
	exec 9>"$cache/promtool.lock"
	flock 9
fi
if [ ! -x "$program" ]; then
	command -v apt-get >/dev/null || { echo "promtool.sh: there is no promtool: install Prometheus" >&2; exit 1; }
	folder=$(mktemp -d "$cache/build.XXXXXX")
	trap 'rm -rf "$folder"' EXIT
	# The lists of packages may never have been read.
	(cd "$folder" && { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } &&
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool) >"$folder/log" 2>&1 9>&- ||
		{ sed 's/^/    /' "$folder/log" >&2; echo "promtool.sh: cannot get Debian's package prometheus" >&2; exit 1; }
	mv "$folder/usr/bin/promtool" "$program"
fi
echo "$program"
