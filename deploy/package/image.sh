#!/usr/bin/env bash
# Writes the image of deploy/Containerfile's target isolate for amd64 and arm64, as an OCI
# image layout (image-layout.md of the OCI image specification) in a tar archive:
# image.sh FILE VERSION AMD64 ARM64. The last two are directories with the two programs.
# SOURCE_DATE_EPOCH and TAR_OPTIONS are those of dist.sh.
set -euo pipefail
file=$1 version=$2
layout=$(mktemp -d) && trap 'rm -rf "$layout"' EXIT
mkdir -p "$layout/blobs/sha256"

# blob TYPE EXTRA keeps what it reads, and prints its descriptor.
blob() {
	local new=$layout/new digest
	cat >"$new"
	digest=$(sha256sum "$new" | cut -d' ' -f1)
	printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d%s}' "$1" "$digest" "$(stat -c %s "$new")" "$2"
	mv "$new" "$layout/blobs/sha256/$digest"
}

manifests=
for arch in amd64 arm64; do
	programs=$3 && shift
	tar -C "$programs" -cf - containerd-shim-isolate-v1 isolatectl >"$layout/layer"
	digest=$(sha256sum "$layout/layer" | cut -d' ' -f1)
	layer=$(gzip -9n "$layout/layer" --stdout | blob layer.v1.tar+gzip '')
	config=$(printf '{"created":"%s","architecture":"%s","os":"linux","config":{"Entrypoint":["/isolatectl"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
		"$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" "$arch" "$digest" | blob config.v1+json '')
	manifest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' "$config" "$layer" |
		blob manifest.v1+json ",\"platform\":{\"os\":\"linux\",\"architecture\":\"$arch\"}")
	manifests+=${manifests:+,}$manifest
done
index() { printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "$1"; }
# The names are for containerd, and for others.
names=$(printf '"io.containerd.image.name":"docker.io/library/isolate:%s","org.opencontainers.image.ref.name":"%s"' "$version" "$version")
index "$(index "$manifests" | blob index.v1+json ",\"annotations\":{$names}")" >"$layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
tar -C "$layout" -cf - oci-layout index.json blobs >"$file"
