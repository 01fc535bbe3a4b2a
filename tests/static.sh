#!/bin/bash
# Builds both programs fully static: tests/static.sh BUILD [ARCHITECTURE]. Debian 12 has no static libmnl, so this is done in a root
# of Debian 13 (tests/debian-13.sh) by the same script as in the image's build stage (deploy/build.sh). BUILD/static gets the
# programs, BUILD/static/root what the image holds.
set -euo pipefail
build=$1
native=$(dpkg --print-architecture)
architecture=${2:-$native}
source=$(cd "$(dirname "$0")/.." && pwd)
root=$("$source/tests/debian-13.sh" "$architecture")
out=$build/static
if [ "$architecture" != "$native" ]; then
	out=$out-$architecture
fi
exec 9> "$root.lock"
flock 9
work=$root/build
rm -rf "$work"
mkdir -p "$work/source"
trap 'rm -rf "$work"' EXIT
tar -C "$source" --exclude=./build --exclude=./.git -cf - . | tar -C "$work/source" -xf -
chroot "$root" env VERSION="${VERSION:-unknown}" SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/build/source/deploy/build.sh /build/source /build/out "$architecture"
rm -rf "$out"
mkdir -p "$out"
cp -a "$work/out" "$out/root"
cp "$out/root/usr/local/bin/"* "$out/"
ls -l "$out/ambient-cni" "$out/ambient-installer"
