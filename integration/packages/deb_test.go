// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"runtime"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// script installs the package, removes it while there is a container and when there is none,
// and purges it; after each step it prints what there is.
const script = `
state() {
	echo "== $1"
	isolatectl config 2>&1 | grep -c default || :
	getent passwd isolate | cut -d: -f1
	cat /etc/subuid /etc/subgid | grep ^isolate
	find /etc/isolate /usr/lib/systemd/system/lxcfs.service.d /usr/lib/sysusers.d/isolate.conf /usr/share/doc/isolate /usr/share/man/man8/isolatectl.8.gz /usr/share/bash-completion/completions/isolatectl -type f 2>/dev/null | sort
}
dpkg -i /dist/isolate_*_$1.deb >/tmp/log 2>&1 || cat /tmp/log
state installed
echo 'nesting = "off"' >>/etc/isolate/config.toml
dpkg -i /dist/isolate_*_$1.deb >/tmp/log 2>&1 || cat /tmp/log
tail -n 1 /etc/isolate/config.toml
mkdir -p /run/isolate/default/c
echo '{}' >/run/isolate/default/c/record.json
dpkg -r isolate 2>&1 | grep ^isolate:
rm -r /run/isolate
dpkg -r isolate >/tmp/log 2>&1 || cat /tmp/log
state removed
dpkg -P isolate >/tmp/log 2>&1 || cat /tmp/log
state purged
find / -xdev -name '*isolate*' | sort
`

const (
	installed = `== installed
KEYS
isolate
isolate:1879048192:268304384
isolate:1879048192:268304384
/etc/isolate/config.toml
/usr/lib/systemd/system/lxcfs.service.d/isolate.conf
/usr/lib/sysusers.d/isolate.conf
/usr/share/bash-completion/completions/isolatectl
/usr/share/doc/isolate/CHANGELOG.md
/usr/share/doc/isolate/README.md
/usr/share/doc/isolate/copyright
/usr/share/man/man8/isolatectl.8.gz
nesting = "off"
isolate: there are containers that run under isolate: remove them first ('isolatectl ps').
== removed
0
isolate
isolate:1879048192:268304384
isolate:1879048192:268304384
/etc/isolate/config.toml
== purged
0
isolate`
)

// TestDeb: a user that has owned files stays, as Debian's policy wants.
func TestDeb(t *testing.T) {
	dist, _ := built(t, "isolate_*.deb")
	for _, name := range []image.Name{image.Demo, image.Systemd257} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := rig.MachineFor(t, rig.Config{Isolate: true, Containerd: peer.Containerd24, Runc: peer.Runc15})
			got := m.Run(t, "--rm", "--runtime", "io.containerd.isolate.v1", "--mount", "type=bind,src="+dist+",dst=/dist,options=rbind:ro",
				m.Image(t, name), "deb", "sh", "-c", script, "sh", runtime.GOARCH).Must(t)
			lines := strings.Split(strings.TrimSpace(got), "\n")
			if len(lines) > 1 && lines[1] != "0" {
				lines[1] = "KEYS"
			}
			if got := strings.Join(lines, "\n"); got != installed {
				t.Errorf("%s\nwant\n%s", got, installed)
			}
		})
	}
}
