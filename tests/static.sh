#!/bin/bash
# Builds both programs fully static: tests/static.sh BUILD. Debian 12 has no static libmnl, so this is done in a root of Debian
# 13, which mmdebstrap makes once; it is kept in a cache outside the checkout, and without network the kept one is used.
# Nothing of the machine's is mounted into the root.
# shellcheck disable=SC2016 # expanded by apt, and inside the root
set -euo pipefail
build=$1
source=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
packages="gcc make libc6-dev pkgconf libmnl-dev libnftnl-dev libnl-3-dev libnl-route-3-dev libcjson-dev libevent-dev libssl-dev \
libprotobuf-c-dev protobuf-c-compiler libyaml-dev libseccomp-dev libzstd-dev zlib1g-dev"
# Another list of packages is another root.
root=$cache/trixie-$(echo "$packages" | cksum | cut -d' ' -f1)

mkdir -p "$cache"
exec 9> "$cache/static.lock"
flock 9
if [ ! -e "$root/.complete" ]; then
	echo "making a Debian 13 root in $root (once)"
	rm -rf "$root"
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -1 || true)
	mirror=${mirror:-http://deb.debian.org/debian}
	# Debian has no static cJSON: it is compiled from its source package.
	mmdebstrap --quiet --variant=minbase --include="${packages// /,}" \
		--customize-hook='chroot "$1" sh -c "cd /usr/src && apt-get -qq --download-only source cjson"' \
		trixie "$root" "deb $mirror trixie main" "deb-src $mirror trixie main"
	mkdir "$root/usr/src/cjson"
	tar -C "$root/usr/src/cjson" --strip-components=1 -xf "$root"/usr/src/cjson_*.orig.tar.gz
	chroot "$root" sh -c 'cd /usr/src/cjson && gcc -O2 -fPIE -ffunction-sections -fdata-sections -c cJSON.c &&
		ar rcs "/usr/lib/$(gcc -dumpmachine)/libcjson.a" cJSON.o'
	touch "$root/.complete"
fi
work=$root/build
rm -rf "$work"
mkdir -p "$work"
tar -C "$source" --exclude=./build --exclude=./.git -cf - . | tar -C "$work" -xf -
chroot "$root" /bin/sh -c "cd /build && make -s -j\$(nproc) STATIC=1 VERSION='${VERSION:-unknown}' BUILD=/build/build all"
mkdir -p "$build/static"
for program in ambient-cni ambient-installer; do
	if readelf -d "$work/build/$program" | grep -q NEEDED; then
		echo "$program is not static:" >&2
		readelf -d "$work/build/$program" | grep NEEDED >&2
		exit 1
	fi
	strip -o "$build/static/$program" "$work/build/$program"
done
rm -rf "$work"
ls -l "$build/static"
