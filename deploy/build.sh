#!/bin/sh
# Builds both programs fully static: deploy/build.sh SOURCE OUT [ARCHITECTURE], inside a Debian 13 that deploy/prepare.sh prepared.
#
# OUT gets what the image holds: usr/local/bin with the two programs, usr/share/licenses with our licence and those of everything
# that was linked in, and ambient-cni/packages there, which lists that, a package a line: name, version, architecture, its source's
# name and version, tabs between; it is taken from the linker's own account of the archives that it used. The same packages and
# sources give the same bytes.
set -eu
source=$1 out=$2 licenses=$2/usr/share/licenses
native=$(dpkg --print-architecture)
architecture=${3:-$native}
triplet=$(dpkg-architecture -a "$architecture" -q DEB_HOST_MULTIARCH 2>/dev/null)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$architecture" != "$native" ]; then
	export PKG_CONFIG_LIBDIR="/usr/lib/$triplet/pkgconfig:/usr/share/pkgconfig"
fi
# A directory for -Map gets a file for each program. Names of the build's own directories stay out of the programs.
mkdir "$work/maps"
LDFLAGS="-L/usr/local/lib/$triplet -Wl,-Map=$work/maps" CFLAGS="-ffile-prefix-map=$source=. -ffile-prefix-map=$work=." \
	make -s -C "$source" -j"$(nproc)" STATIC=1 CC="$triplet-gcc" AR="$triplet-ar" VERSION="${VERSION:-unknown}" BUILD="$work/build" all

rm -rf "$out"
mkdir -p "$out/usr/local/bin" "$licenses/ambient-cni"
for program in ambient-cni ambient-installer; do
	if "$triplet-readelf" -d "$work/build/$program" | grep -q NEEDED; then
		echo "$program is not static:" >&2
		"$triplet-readelf" -d "$work/build/$program" | grep NEEDED >&2
		exit 1
	fi
	"$triplet-strip" -o "$out/usr/local/bin/$program" "$work/build/$program"
	chmod 0755 "$out/usr/local/bin/$program"
done
cp "$source/LICENSE" "$licenses/ambient-cni/LICENSE"

# The archives and start-up objects that ld took something from; whose they are, dpkg knows, apart from our own libcjson.a and the
# archives that prepare.sh made of the packages' own.
cat "$work"/maps/*.map | grep -oE '^(LOAD )?/usr/[^ (]+\.[ao]' | sed 's/^LOAD //' | sort -u | while read -r file; do
	readlink -f "$file"
done | sort -u > "$work/files"
grep -oE '/usr/[^ (]+\.a\(' "$work"/maps/*.map | sed 's/.*map://; s/($//' | sort -u | xargs -r -n1 readlink -f | sort -u > "$work/used"
: > "$work/owners"
while read -r file; do
	case $file in
	*.a) grep -qxF "$file" "$work/used" || continue ;;
	esac
	case $file in
	*/libcjson.a) echo "libcjson-dev:$architecture" ;;
	/usr/local/*) dpkg -S "/usr/lib/${file#/usr/local/lib/}" | sed 's/: .*//' ;;
	*) dpkg -S "$file" | sed 's/: .*//' ;;
	esac >> "$work/owners"
done < "$work/files"
sort -u "$work/owners" | while read -r package; do
	# shellcheck disable=SC2016 # dpkg-query's
	dpkg-query -W -f='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' "$package"
done | sort -u > "$licenses/ambient-cni/packages"
cut -f1 "$licenses/ambient-cni/packages" | while read -r package; do
	cp -L "/usr/share/doc/$package/copyright" "$licenses/$package"
done
find "$out" -type f -path '*/licenses/*' -exec chmod 0644 {} +
find "$out" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
