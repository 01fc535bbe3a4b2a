#!/bin/bash
# Prints the path of a Debian 13 root in which deploy/build.sh works: tests/debian-13.sh [ARCHITECTURE]. mmdebstrap makes it once; it
# is kept in a cache outside the checkout, and without network the kept one is used. Nothing of the machine's is mounted into it.
# Several may run at once.
# shellcheck disable=SC2016 # expanded by apt
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
native=$(dpkg --print-architecture)
architecture=${1:-$native}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
# Another list of packages, or another way to install them, is another root.
root=$cache/debian-13-$architecture-$(cat "$source/deploy/build-packages" "$source/deploy/prepare.sh" | cksum | cut -d' ' -f1)

mkdir -p "$cache"
exec 9> "$root.lock"
flock 9
if [ ! -e "$root/.complete" ]; then
	echo "making a Debian 13 root in $root (once)" >&2
	rm -rf "$root"
	mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | head -1 || true)
	mirror=${mirror:-http://deb.debian.org/debian}
	mkdir -p "$root"
	mmdebstrap --quiet --variant=minbase --customize-hook='mkdir -p "$1/deploy"' \
		--customize-hook="copy-in '$source/deploy/build-packages' '$source/deploy/prepare.sh' /deploy" \
		--customize-hook="chroot \"\$1\" /deploy/prepare.sh $architecture" \
		--customize-hook='rm -rf "$1/deploy"' \
		trixie "$root" "deb $mirror trixie main" "deb-src $mirror trixie main" >&2
	touch "$root/.complete"
fi
echo "$root"
