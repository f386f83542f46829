#!/bin/sh
set -e
# deb says "remove", rpm 0; an upgrade leaves running containers their shims.
case "$1" in remove | 0) ;; *) exit 0 ;; esac
if ! list=$(isolatectl ps --json) || [ "$list" != "[]" ]; then
	echo "isolate: there are containers that run under isolate: remove them first ('isolatectl ps')." >&2
	exit 1
fi
