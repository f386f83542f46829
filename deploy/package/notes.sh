#!/bin/sh
# Prints what CHANGELOG.md says of a version, or of what is not released yet if it does
# not know the version: notes.sh VERSION.
set -eu
version=${1#v}
cd "$(dirname "$0")/../.."
grep -qF "## [$version]" CHANGELOG.md || version=Unreleased
awk -v head="## [$version]" '
	index($0, "## [") == 1 { inside = index($0, head) == 1; next }
	/^\[[^]]*\]: / { inside = 0 } # links at the end
	inside { print }
' CHANGELOG.md | sed '1{/^$/d}'
