#!/bin/bash
# Tries the README's commands where nothing was installed by hand: in a fresh Debian 12 root made by mmdebstrap, on a clone of
# HEAD. tests/clean-root.sh [TARGET...], by default demo and test. The target newcomer is the commands of the README as they stand
# there, in their order, from `make demo` to a pod whose rules are listed (`make test-newcomer`). The root is thrown away; a tarball of
# it is kept in a cache.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
targets=${*:-demo test}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
"$source/tests/deps" mmdebstrap git
mkdir -p "$cache"
root=$(mktemp -d "${TMPDIR:-/var/tmp}/ambient-clean-root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
# A signal ends the script by way of the trap above.
trap 'exit 1' HUP INT TERM

if [ ! -e "$cache/bookworm.tar" ]; then
	mmdebstrap --quiet --format=tar --variant=minbase --include=make,ca-certificates bookworm "$cache/bookworm.tar.new"
	mv "$cache/bookworm.tar.new" "$cache/bookworm.tar"
fi
tar -C "$root" -xf "$cache/bookworm.tar"
# How this machine reaches Debian's archive and the Go module proxy is this machine's business.
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
if [ -d /usr/local/share/ca-certificates ]; then
	cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
fi
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
git clone -q "$source" "$root/src"

# Mounts of its own, gone with the last process; the network is the machine's, for apt and go alone.
inside() {
	# shellcheck disable=SC2016 # expanded in there
	unshare --mount --pid --fork --kill-child bash -euc '
		root=$1
		shift
		mount --make-rprivate /
		# pivot_root and not chroot: a test that enters a mount namespace begins at its root, which must not be the
		# root of this machine.
		mount --bind "$root" "$root"
		mount -t proc proc "$root/proc"
		mount --rbind /sys "$root/sys"
		mount --rbind /dev "$root/dev"
		mount -t tmpfs tmpfs "$root/run"
		mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
		mkdir -p "$root/before"
		cd "$root"
		pivot_root . before
		umount -l /before
		cd /src
		exec env -u BASH_ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
	' clean-root "$root" "$@"
}

for target in $targets; do
	echo "== $target"
	if [ "$target" != newcomer ]; then
		inside make "$target"
		continue
	fi
	/usr/bin/python3 -B "$source/tests/docs/commands.py" newcomer >"$root/typed"
	# A pipe: the shell reads it line by line, and what it starts goes on where it was.
	# shellcheck disable=SC2002
	cat "$root/typed" | inside bash | tee "$root/printed"
	# The last of these is a rule of the pod: the way was gone to its end.
	for text in ' 0 failed; ' '+ ip netns exec pod nft list table inet ambient-cni' 'redirect to :15001 comment "outbound"' \
		'+ ip netns delete pod'; do
		grep -qF -- "$text" "$root/printed" || { echo "clean root: the newcomer did not see: $text" >&2; exit 1; }
	done
done
echo "clean root: $targets passed"
