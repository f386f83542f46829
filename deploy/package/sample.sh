#!/usr/bin/env bash
# Prints every key with its meaning and its default, as comments: a config.toml that
# changes nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo "# Settings of isolate. Each key has its default here; remove the # to change it."
echo "# Files in config.d are read after this one."
echo
go run ./cmd/isolatectl config --describe --config-dir /nonexistent |
	sed -E '/^[^#]/{ s/[[:space:]]*# default$//; s/^/#/ }'
