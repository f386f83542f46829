// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// conformance is what every OCI runtime must show in a container, as shell
// commands and their output.
var conformance = []struct{ name, command, want string }{
	{"root", "id -u; id -g", "0 0"},
	{"init", "echo $$", "1"},
	{"ids", "read a b c < /proc/self/uid_map; echo $a $c; [ $b -ge 1879048192 ] && echo exclusive", "0 65536 exclusive"},
	{"groups", "read a b c < /proc/self/gid_map; echo $a $c; cat /proc/self/setgroups", "0 65536 allow"},
	{"owners", "stat -c %u:%g:%a / /etc/passwd /home/user /home/user/file /srv/shared", "0:0:755 0:0:644 1000:1000:755 1000:1000:600 33:1000:2775"},
	{"hard link", "stat -c %h /srv/data/readme; cat /srv/data/hardlink", "2 a file of the second layer"},
	{"whiteout", "ls /etc/issue.net >/dev/null 2>&1; echo $?", "2"},
	{"capability of a file", "getcap /usr/local/bin/capable", "/usr/local/bin/capable cap_net_bind_service,cap_net_raw=ep"},
	{"capability gained", "setpriv --reuid 1000 --clear-groups --bounding-set -all,+net_raw,+net_bind_service sh -c '/usr/local/bin/capable 5 & sleep 0.2; grep CapEff /proc/$!/status; kill $!'", "CapEff:\t0000000000002400"},
	{"setuid program", "setpriv --reuid 1000 --regid 1000 --clear-groups sh -c '/usr/local/bin/suid-id -u; id -u'", "0 1000"},
	{"new file", "touch /new; stat -c %u:%g /new", "0:0"},
	{"new file of a user", "setpriv --reuid 1000 --regid 1000 --clear-groups touch /home/user/new; stat -c %u:%g /home/user/new", "1000:1000"},
	{"chown to the last id", "touch /last; chown 65535:65535 /last; stat -c %u:%g /last", "65535:65535"},
	{"copy-up", "echo more >> /srv/data/readme; stat -c %u:%g /srv/data/readme; cat /srv/data/readme", "0:0 a file of the second layer more"},
	{"removal", "rm -r /srv/data /home/user; ls -d /srv/data /home/user 2>/dev/null | wc -l", "0"},
	{"rename of a directory", "mv /srv/shared /srv/moved; stat -c %u:%g:%a /srv/moved", "33:1000:2775"},
	{"environment", "echo $FOO; pwd; cat /proc/sys/kernel/hostname", "bar /srv box"},
	{"host name", "hostname other; hostname", "other"},
	{"own network", "ls /sys/class/net; ip link set lo up; ip -o addr show lo | wc -l", "lo 2"},
	{"limit", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null", "67108864"},
	// On version 2 the container's processes are in a leaf of its group.
	{"cgroup namespace", "grep -cE ':/(init\\.scope)?$' /proc/self/cgroup; wc -l < /proc/self/cgroup", "SAME"},
	{"mount", "mount -t tmpfs none /mnt; stat -f -c %T /mnt; umount /mnt", "tmpfs"},
	{"devices", "echo x > /dev/null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full; echo $?", "4 4 1"},
	{"no host devices", "mknod /sda b 8 0 2>&1; echo $?", "mknod: /sda: Operation not permitted 1"},
	{"no host time", "date -s @1 >/dev/null 2>&1; echo $?", "1"},
	{"no host memory", "cat /proc/kcore 2>/dev/null | head -c1 | wc -c", "0"},
}

// TestConformance runs the same table with every OCI runtime.
func TestConformance(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			var script strings.Builder
			for i, c := range conformance {
				// Output ends up on one line; blanks separate lines.
				fmt.Fprintf(&script, "printf '%d\\t%%s\\n' \"$( (%s) 2>&1 | tr '\\n' ' ')\"\n", i, c.command)
			}
			script.WriteString("exit 7\n")
			options := []string{"--allow-new-privs", "--env", "FOO=bar", "--cwd", "/srv", "--hostname", "box", "--memory-limit", "67108864"}
			r := m.run(t, options, "sh", "-c", script.String())
			if r.Code != 7 {
				t.Errorf("exit status %d, want 7: %s", r.Code, r.Stderr)
			}
			got := map[string]string{}
			for line := range strings.Lines(r.Stdout) {
				key, value, _ := strings.Cut(line, "\t")
				got[key] = strings.TrimSpace(value)
			}
			for i, c := range conformance {
				value, ok := got[strconv.Itoa(i)]
				switch {
				case !ok:
					t.Errorf("%s: no output; stderr %q", c.name, r.Stderr)
				case c.want == "SAME":
					if f := strings.Fields(value); len(f) != 2 || f[0] != f[1] {
						t.Errorf("%s: %q, want two equal numbers", c.name, value)
					}
				case value != c.want:
					t.Errorf("%s: %q, want %q", c.name, value, c.want)
				}
			}
			binary, err := peer.Get(t.Context(), runtime)
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(m.said(t), "\n"); !strings.Contains(said, "runtime="+binary.Program(binary.Programs()[0])) {
				t.Errorf("ran with another runtime: %s", said)
			}
			if w := m.warnings(t); len(w) > 0 {
				t.Errorf("warnings: %q", w)
			}
		})
	}
}
