// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// rpmScript installs the package, removes it while there is a container and when there is
// none, and prints what there is.
const rpmScript = `
mkdir -p /var/lib/rpm
rpm -i --nodeps /dist/isolate-*.$(uname -m).rpm 2>/tmp/log >&2 || cat /tmp/log
rpm -ql isolate | grep -v /doc/
getent passwd isolate | cut -d: -f1
grep -h ^isolate /etc/subuid /etc/subgid
isolatectl version | cut -d' ' -f1
mkdir -p /run/isolate/default/c
echo '{}' >/run/isolate/default/c/record.json
rpm -e isolate 2>&1 | grep ^isolate:
rm -r /run/isolate
rpm -e isolate 2>/tmp/log >&2 || cat /tmp/log
echo "== removed"
grep -h ^isolate /etc/subuid /etc/subgid
find / -xdev -name '*isolate*' | sort
`

const rpmInstalled = `/etc/isolate
/etc/isolate/config.d
/etc/isolate/config.toml
/usr/bin/containerd-shim-isolate-v1
/usr/bin/isolatectl
/usr/lib/systemd/system/lxcfs.service.d
/usr/lib/systemd/system/lxcfs.service.d/isolate.conf
/usr/lib/sysusers.d/isolate.conf
/usr/share/bash-completion/completions/isolatectl
/usr/share/fish/vendor_completions.d/isolatectl.fish
/usr/share/man/man8/isolatectl.8.gz
/usr/share/zsh/site-functions/_isolatectl
isolate
isolate:1879048192:268304384
isolate:1879048192:268304384
isolate
isolate: there are containers that run under isolate: remove them first ('isolatectl ps').
== removed`

// TestRpm: rpm removes only the directories that the package names.
func TestRpm(t *testing.T) {
	rig.Require(t, rig.Root)
	dist, _ := built(t, "isolate-*.rpm")
	m := rig.MachineFor(t, rig.Config{Isolate: true, Containerd: peer.Containerd24, Runc: peer.Runc15})
	got := m.Run(t, "--mount", "type=bind,src="+dist+",dst=/dist,options=rbind:ro", m.Image(t, image.Rpm), "rpm", "sh", "-c", rpmScript).Must(t)
	if got := strings.TrimSpace(got); got != rpmInstalled {
		t.Errorf("%s\nwant\n%s", got, rpmInstalled)
	}
}
