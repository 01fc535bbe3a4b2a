#!/bin/bash
# Builds the image: deploy/image.sh BUILD [ARCHITECTURE]. BUILD/image gets ambient-cni-ARCHITECTURE.oci.tar (an OCI archive),
# its software bill of materials (SPDX), and its contents as a list; all are printed.
#
# buildah does it without a daemon and without mounts (chroot isolation, vfs), on deploy/Containerfile. Its base is, in this order:
# BASE from the environment, Debian's image where a registry is reachable (not for another architecture), else one made here of the root that mmdebstrap makes
# (tests/debian-13.sh), which has everything that prepare.sh would fetch. Times in the image are SOURCE_DATE_EPOCH, by default that of
# the last commit.
set -euo pipefail
build=$1
native=$(dpkg --print-architecture)
architecture=${2:-$native}
source=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
version=${VERSION:-unknown}
tag=localhost/ambient-cni:$(echo "$version" | tr -c 'A-Za-z0-9_.\n-' -)
if [ "$architecture" != "$native" ]; then
	tag=$tag-$architecture
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
out=$build/image
mkdir -p "$out" "$cache/buildah"
exec 9> "$cache/buildah.lock"
flock 9
# Nothing of ours is left in the machine's own /etc/cni/net.d, where buildah would put a lock.
export CONTAINERS_CONF=$cache/buildah/containers.conf
printf '[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "%s"\n' "$cache/buildah/net.d" > "$CONTAINERS_CONF"
buildah() { command buildah --root "$cache/buildah/storage" --runroot "$cache/buildah/run" --storage-driver vfs "$@"; }

# Only Debian's own image will do, and asking for it may not take long.
base=${BASE:-}
if [ -z "$base" ] && [ "$architecture" = "$native" ] && timeout 20 buildah --log-level fatal pull -q debian:trixie-slim > /dev/null 2>&1; then
	base=debian:trixie-slim
fi
if [ -z "$base" ]; then
	root=$("$source/tests/debian-13.sh" "$architecture")
	base=localhost/$(basename "$root"):latest
	if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
		echo "making the base image of $root"
		container=$(buildah from scratch)
		cp -a "$root/." "$(buildah mount "$container")/"
		# This buildah takes every stage for one of the image's platform, whatever FROM says; the compiler runs here all the same.
		buildah config --arch "$architecture" "$container"
		buildah commit -q --rm "$container" "$base" > /dev/null
	fi
fi
archive=$out/ambient-cni-$architecture.oci.tar
if ! buildah bud --isolation chroot --pull-never --format oci --timestamp "$SOURCE_DATE_EPOCH" --platform "linux/$architecture" \
	--build-arg "BASE=$base" --build-arg "VERSION=$version" \
	--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --layers=false --force-rm \
	-f "$source/deploy/Containerfile" -t "$tag" "$source" > "$out/build-$architecture.log" 2>&1; then
	cat "$out/build-$architecture.log" >&2
	exit 1
fi
# What an earlier build left under the same name.
buildah rmi --prune --force > /dev/null 2>&1 || true
rm -f "$archive"
buildah push -q "$tag" "oci-archive:$archive:$tag"
/usr/bin/python3 "$source/deploy/image_contents.py" "$archive" "$version" "$out/ambient-cni-$architecture"
