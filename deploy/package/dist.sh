#!/usr/bin/env bash
# Builds what a release consists of into DIR: dist.sh DIR VERSION REVISION. The same
# commit gives the same bytes: dates are those of the commit.
set -euo pipefail
dir=$(realpath -m "$1") version=$2 revision=$3
cd "$(dirname "$0")"
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
sbom=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)
export TAR_OPTIONS="--sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --mode=go-w"

rm -rf "$dir" && mkdir -p "$dir"
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# archive DIR NAME AS packs NAME, which is in DIR.
archive() { tar -C "$1" -cf - "$2" | gzip -9n >"$dir/$3.tar.gz"; }

mkdir "$work/completions"
for shell in bash zsh fish; do
	go run ../../cmd/isolatectl completion "$shell" >"$work/completions/isolatectl.$shell"
done
go run ../../cmd/isolatectl man >"$work/isolatectl.8"
gzip -9n <"$work/isolatectl.8" >"$work/isolatectl.8.gz"
for ARCH in amd64 arm64; do
	STAGE=$work/isolate-$version-linux-$ARCH
	make -s -C ../.. build GOARCH="$ARCH" BIN="$STAGE" VERSION="$version" REVISION="$revision"
	./sample.sh >"$STAGE/config.toml"
	cp -r "$work"/{completions,isolatectl.8} ../../{README.md,CHANGELOG.md,LICENSE} "$STAGE"
	archive "$work" "${STAGE##*/}" "${STAGE##*/}"
	archive "$STAGE" containerd-shim-isolate-v1 "isolate-shim-$version-linux-$ARCH"
	for program in containerd-shim-isolate-v1 isolatectl; do
		go run "$sbom" bin -json -noserial -version "$version" -output "$dir/$program-$ARCH.cdx.json" "$STAGE/$program"
		sed -i "s/\"timestamp\": \"[^\"]*\"/\"timestamp\": \"$date\"/" "$dir/$program-$ARCH.cdx.json"
	done
	# A package has a version of numbers, before what git says of a commit between two.
	VERSION=$(sed -E '/^v?[0-9]+\.[0-9]+\.[0-9]+/!s/^/0.0.0+/; s/^v//; s/-([0-9]+)-g/+\1.g/; s/-dirty/.dirty/' <<<"$version")
	export ARCH STAGE VERSION WORK="$work"
	for format in deb rpm; do
		go run "$nfpm" package --config nfpm.yaml --packager "$format" --target "$dir"
	done
done
./image.sh "$dir/isolate-image-$version.tar" "$version" "$work/isolate-$version-linux-"{amd64,arm64}
./chart.sh "$work" "$VERSION"
archive "$work" isolate "isolate-chart-$version"
./shim.sh "$dir" "$version" >"$dir/isolate-shim-$version.yaml"
./notes.sh "$version" >"$dir/NOTES.md"
cd "$dir" && sha256sum -- * >SHA256SUMS
ls -l "$dir"
