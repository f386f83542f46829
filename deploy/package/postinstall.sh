#!/bin/sh
set -e
case "$1" in abort-*) exit 0 ;; esac # of deb: nothing was undone
range=1879048192:268304384 # up to 2147352575, as without this line

if ! getent passwd isolate >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers isolate.conf
	else
		useradd --system --no-create-home --home-dir / --shell /usr/sbin/nologin isolate
	fi
fi
for file in /etc/subuid /etc/subgid; do
	[ -e "$file" ] || : >"$file"
	grep -q '^isolate:' "$file" || echo "isolate:$range" >>"$file"
done

[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
echo "isolate: 'isolatectl check' says whether this host has all that containers need."
