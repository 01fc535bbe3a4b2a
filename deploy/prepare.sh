#!/bin/sh
# Makes a Debian 13 a place where deploy/build.sh works: deploy/prepare.sh [ARCHITECTURE]. Run inside it, as root; the build stage of
# the image and tests/static.sh do. For another architecture than the machine's it installs a cross compiler and that architecture's
# libraries. What is there already is not fetched again.
set -eu
native=$(dpkg --print-architecture)
architecture=${1:-$native}
here=$(cd "$(dirname "$0")" && pwd)
done=/usr/src/ambient-cni-prepared-$architecture-$(cksum < "$here/build-packages" | cut -d' ' -f1)
[ ! -e "$done" ] || exit 0

if [ "$architecture" != "$native" ]; then
	dpkg --add-architecture "$architecture"
fi
# cJSON comes without a static library, so its source is wanted too.
for list in /etc/apt/sources.list.d/*.sources; do
	[ ! -e "$list" ] || sed -i 's/^Types: deb$/Types: deb deb-src/' "$list"
done
apt-get update -qq
packages=
while read -r package; do
	case $package in
	# Programs that run here.
	make | pkgconf | protobuf-c-compiler) packages="$packages $package" ;;
	gcc) [ "$architecture" = "$native" ] && packages="$packages gcc" || packages="$packages crossbuild-essential-$architecture" ;;
	'#'*) ;;
	*) packages="$packages $package:$architecture" ;;
	esac
done < "$here/build-packages"
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages dpkg-dev > /dev/null
triplet=$(dpkg-architecture -a "$architecture" -q DEB_HOST_MULTIARCH 2>/dev/null)
work=$(mktemp -d)
(
	cd "$work"
	# apt would drop its privileges for a directory that its own user can't write.
	apt-get -qq -o APT::Sandbox::User=root --download-only source cjson
	mkdir cjson
	tar -C cjson --strip-components=1 -xf cjson_*.orig.tar.gz
	cd cjson
	"$triplet-gcc" -O2 -fPIE -ffunction-sections -fdata-sections -c cJSON.c
	"$triplet-ar" rcsD "/usr/lib/$triplet/libcjson.a" cJSON.o
)
rm -rf "$work"
# The archives without what unwinds a stack, a tenth of the programs: C does that for pthread_cancel and pthread_exit alone, which
# nobody calls here.
mkdir -p "/usr/local/lib/$triplet"
for archive in libc libmnl libnftnl libnl-3 libnl-route-3 libcjson libevent libevent_openssl libssl libcrypto libprotobuf-c libyaml \
	libseccomp; do
	"$triplet-objcopy" --enable-deterministic-archives --remove-section .eh_frame \
		"/usr/lib/$triplet/$archive.a" "/usr/local/lib/$triplet/$archive.a"
done
touch "$done"
