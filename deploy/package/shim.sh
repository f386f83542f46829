#!/usr/bin/env bash
# Prints the object by which runtime-class-manager installs the shim on the nodes of a
# cluster, from the archives in DIR: shim.sh DIR VERSION.
set -euo pipefail
dir=$1 version=$2
cat <<END
apiVersion: runtime.spinkube.dev/v1alpha1
kind: Shim
metadata:
  # The file in the archives is containerd-shim- and this name; so is the handler's name.
  name: isolate-v1
spec:
  fetchStrategy:
    platforms:
END
for arch in amd64 arm64; do
	archive=isolate-shim-$version-linux-$arch.tar.gz
	cat <<END
      - os: linux
        arch: $arch
        location: https://github.com/isolate-shim/isolate/releases/download/$version/$archive
        sha256: $(sha256sum "$dir/$archive" | cut -d' ' -f1)
END
done
cat <<END
  runtimeClass:
    name: isolate
    handler: isolate-v1
  rolloutStrategy:
    type: recreate
END
