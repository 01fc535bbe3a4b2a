#!/bin/bash
# Runs Debian's docker daemon for itself, and tells nobody else of it: docker.sh FOLDER. FOLDER/docker.sock is its socket, FOLDER/bin
# the command; it has a network namespace of its own without any link, and ends when its standard input does.
set -euo pipefail
folder=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ambient-cni
root=$cache/docker
mkdir -p "$cache"
exec 9> "$root.lock"
flock 9
if [ ! -x "$root/usr/sbin/dockerd" ]; then
	work=$(mktemp -d "$cache/docker.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download docker.io && dpkg-deb -x docker.io_*.deb root) > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; exit 1; }
	rm -rf "$root"
	mv "$work/root" "$root"
fi
exec 9>&-
mkdir -p "$folder"
ln -sfn "$root/usr/bin" "$folder/bin"
export PATH=$root/usr/bin:$root/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unshare --net --mount --propagation private dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
	--host "unix://$folder/docker.sock" --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
	--storage-driver vfs --cgroup-parent "/ambient-cni-test-$$" < /dev/null > "$folder/log" 2>&1 &
daemon=$!
end() {
	kill $daemon 2> /dev/null || true
	wait $daemon || true
	rm -rf "$folder/data" "$folder/exec"
	find /sys/fs/cgroup -depth -type d -path "*/ambient-cni-test-$$*" -exec rmdir {} + 2> /dev/null || true
}
trap end EXIT
cat > /dev/null
