#!/bin/bash
# Builds the image: deploy/image.sh BUILD [ARCHITECTURE]. BUILD/image gets ambient-cni-ARCHITECTURE.oci.tar (an OCI archive),
# its software bill of materials (SPDX), and its contents as a list; all are printed.
#
# BUILDER is buildah or docker; without it, buildah where it is there, else docker. buildah needs no daemon and no mounts (chroot
# isolation, vfs). docker needs its daemon and BuildKit, and keeps the image under its tag besides. Both work on deploy/Containerfile.
#
# The base is, in this order: BASE from the environment, Debian's image where a registry is reachable (not for another
# architecture), else one made here of the root that mmdebstrap makes (tests/debian-13.sh), which has everything that prepare.sh
# would fetch. Times in the image are SOURCE_DATE_EPOCH, by default that of the last commit.
set -euo pipefail
build=$1
native=$(dpkg --print-architecture 2>/dev/null || uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
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
archive=$out/ambient-cni-$architecture.oci.tar
log=$out/build-$architecture.log
builder=${BUILDER:-}
if [ -z "$builder" ]; then
	builder=docker
	if command -v buildah > /dev/null; then
		builder=buildah
	fi
fi
mkdir -p "$out" "$cache/buildah"
arguments=(--build-arg "VERSION=$version" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --platform "linux/$architecture"
	-f "$source/deploy/Containerfile" -t "$tag")

# The root that a base is made of, and that base's name.
make_root() {
	if ! command -v mmdebstrap > /dev/null; then
		echo "image: debian:trixie-slim can't be had from a registry, and there is no mmdebstrap to make a base: install it, or" \
			"name an image of Debian 13 in BASE" >&2
		exit 1
	fi
	root=$("$source/tests/debian-13.sh" "$architecture")
	base=localhost/$(basename "$root"):latest
}

by_buildah() {
	exec 9> "$cache/buildah.lock"
	flock 9
	# Nothing of ours is left in the machine's own /etc/cni/net.d, where buildah would put a lock.
	export CONTAINERS_CONF=$cache/buildah/containers.conf
	printf '[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "%s"\n' "$cache/buildah/net.d" > "$CONTAINERS_CONF"
	buildah() { command buildah --root "$cache/buildah/storage" --runroot "$cache/buildah/run" --storage-driver vfs "$@"; }

	# Only Debian's own image will do, and asking for it may not take long.
	base=${BASE:-}
	if [ -z "$base" ] && [ "$architecture" = "$native" ] &&
		timeout 20 buildah --log-level fatal pull -q debian:trixie-slim > /dev/null 2>&1; then
		base=debian:trixie-slim
	fi
	if [ -z "$base" ]; then
		make_root
		if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
			echo "making the base image of $root"
			container=$(buildah from scratch)
			cp -a "$root/." "$(buildah mount "$container")/"
			# This buildah takes every stage for one of the image's platform, whatever FROM says; the compiler runs here all the same.
			buildah config --arch "$architecture" "$container"
			buildah commit -q --rm "$container" "$base" > /dev/null
		fi
	fi
	if ! buildah bud --isolation chroot --pull-never --format oci --timestamp "$SOURCE_DATE_EPOCH" --layers=false --force-rm \
		--build-arg "BASE=$base" "${arguments[@]}" "$source" > "$log" 2>&1; then
		cat "$log" >&2
		exit 1
	fi
	# What an earlier build left under the same name.
	buildah rmi --prune --force > /dev/null 2>&1 || true
	rm -f "$archive"
	buildah push -q "$tag" "oci-archive:$archive:$tag"
}

by_docker() {
	if ! docker version > /dev/null 2> "$log"; then
		echo "image: docker does not work here: $(tail -1 "$log"); start it, or install buildah, which needs no daemon" >&2
		exit 1
	fi
	export DOCKER_BUILDKIT=1 BUILDX_NO_DEFAULT_ATTESTATIONS=1
	network=default
	base=${BASE:-}
	if [ -z "$base" ] && [ "$architecture" = "$native" ] && timeout 60 docker pull -q debian:trixie-slim > /dev/null 2>&1; then
		base=debian:trixie-slim
	fi
	if [ -z "$base" ]; then
		make_root
		# Everything is in it.
		network=none
		if ! docker image inspect "$base" > /dev/null 2>&1; then
			echo "making the base image of $root"
			tar -C "$root" -c . | docker import --platform "linux/$native" - "$base" > /dev/null
		fi
	fi
	if ! docker build --progress plain --network "$network" --build-arg "BASE=$base" "${arguments[@]}" "$source" > "$log" 2>&1; then
		cat "$log" >&2
		exit 1
	fi
	saved=$out/docker-$architecture.tar
	docker save -o "$saved" "$tag"
	rm -f "$archive"
	/usr/bin/env python3 "$source/deploy/oci_archive.py" "$saved" "$archive" "$tag" "$SOURCE_DATE_EPOCH"
	rm -f "$saved"
}

case $builder in
buildah | docker) "by_$builder" ;;
*)
	echo "image: BUILDER is buildah or docker, found \"$builder\"" >&2
	exit 2
	;;
esac
/usr/bin/env python3 "$source/deploy/image_contents.py" "$archive" "$version" "$out/ambient-cni-$architecture"
