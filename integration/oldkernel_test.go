// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"cmp"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// idFiles are put into a layer of the small image: /ids/suid and /ids/capable are
// the program that tests run inside.
var idFiles = []struct {
	path     string
	mode     uint32
	uid, gid int
	attr     string
	value    string // hex
}{
	{path: "ids/suid", mode: 0o4755},
	{path: "ids/sgid", mode: 0o2755, gid: 33},
	{path: "ids/capable", mode: 0o755, attr: "security.capability", value: "0100000200200000000000000000000000000000"}, // cap_net_raw=ep
	{path: "ids/acl", mode: 0o600, attr: "system.posix_acl_access", value: "0200000001000600ffffffff02000600e803000004000000ffffffff10000600ffffffff20000000ffffffff"},
	{path: "ids/private", mode: 0o600, uid: 1000, gid: 1000},
	{path: "ids/gone", mode: 0o644},
	{path: "ids/dir/below", mode: 0o644, uid: 33, gid: 33},
}

// fillLayer puts them there, once.
func fillLayer(t *testing.T, n *rig.Node) {
	t.Helper()
	layers, err := filepath.Glob(filepath.Join(n.Root, "io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/www"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("first layer: %q, %v", layers, err)
	}
	// Snapshots are numbered; those of containers may have copies.
	layer := filepath.Dir(slices.MinFunc(layers, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}))
	if _, err := os.Stat(layer + "/ids"); err == nil {
		return
	}
	program, err := os.ReadFile(insideProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range idFiles {
		path := filepath.Join(layer, f.path)
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, program, 0o600))
		must(os.Chown(path, f.uid, f.gid))
		must(unix.Chmod(path, f.mode))
		if f.attr != "" {
			value, err := hex.DecodeString(f.value)
			must(err)
			must(unix.Setxattr(path, f.attr, value, 0))
		}
	}
	must(os.Link(layer+"/ids/suid", layer+"/ids/dir/suid2"))
	must(os.Symlink("suid", layer+"/ids/link"))
	must(os.Lchown(layer+"/ids/link", 33, 33))
}

// TestOldKernel proves that containers work where nothing can be mapped: run under
// Linux 5.10, the setting "fallback" moves ids on disk and volumes are bound as
// they are. Under a newer one the same must come out of either way.
func TestOldKernel(t *testing.T) {
	for _, test := range []struct {
		name, config string
		runtime      peer.Name
	}{
		{"fallback", "[rootfs]\nfallback = \"chown\"", peer.Runc15},
		{"always", chowned, peer.Crun121},
	} {
		t.Run(test.name, func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := machineFor(t, test.runtime, "overlayfs", image.Inner, test.config)
			fillLayer(t, m.Node)
			shared := shortDir(t)
			if err := os.Chmod(shared, 0o777); err != nil {
				t.Fatal(err)
			}
			options := slices.Concat([]string{"--allow-new-privs"}, volume(shared, "/ro", "rbind:ro"), volume(shared, "/rw", "rbind:rw"))
			m.start(t, "a", options, "sleep", "1000")
			checkIDs(t, m)
			m.restart(t, "a")
			checkIDs(t, m)

			const script = `
				mv /ids/dir /ids/moved && stat -c %u:%g /ids/moved/below
				chown 5:6 /ids/moved/below && stat -c %u:%g /ids/moved/below
				rm /ids/gone && ls /ids/gone 2>/dev/null || echo whiteout
				rm -r /ids/moved && mkdir /ids/moved && ls /ids/moved && echo opaque
				touch /rw/made && echo volume
				touch /ro/made 2>/dev/null || echo read-only
				mount -o remount,bind,rw /ro 2>/dev/null || true; touch /ro/made 2>/dev/null || echo locked
				mkdir /tmp/fs && mount -t tmpfs none /tmp/fs && touch /tmp/fs/x && echo tmpfs
				mkdir /sys/fs/cgroup/*/sub 2>/dev/null || mkdir /sys/fs/cgroup/sub; echo cgroup
				echo "$(awk '{print $1}' /proc/uptime | cut -d. -f1 | wc -l) $(cat /proc/sys/vm/max_map_count >/proc/sys/vm/max_map_count && echo sysctl)"
				touch /ids/more && sync && echo end
			`
			const want = "33:33\n5:6\nwhiteout\nopaque\nvolume\nread-only\nlocked\ntmpfs\ncgroup\n1 sysctl\nend"
			if got := m.exec(t, "a", nil, "sh", "-ec", script).Must(t); got != want {
				t.Errorf("the container printed\n%s\nwant\n%s", got, want)
			}
			const final = `touch /x 2>/dev/null || echo read-only; mount -o remount,bind,rw / 2>/dev/null; touch /x 2>/dev/null || echo final`
			if got, want := m.Output(t, "run", "--rm", "--read-only", "--runtime", shimName, m.reference, "b", "sh", "-c", final).Must(t), "read-only\nfinal"; got != want {
				t.Errorf("a container with a read-only rootfs printed\n%s\nwant\n%s", got, want)
			}
			pid := m.pid(t, "a")
			killShim(t, "a")
			rig.Eventually(t, "end of a container whose shim was killed", func() bool {
				_, err := os.Stat("/proc/" + pid)
				return err != nil && !m.mounted("a")
			})
			rig.Eventually(t, "another start", func() bool {
				return m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Err() == nil
			})
			if got := m.exec(t, "a", nil, "ls", "/ids/more").Must(t); got != "/ids/more" {
				t.Errorf("after that the container has %q", got)
			}
			m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
		})
	}
}

// checkIDs proves by programs in the container that the layer's files are what
// they were.
func checkIDs(t *testing.T, m machine) {
	t.Helper()
	paths := []string{"/ids/suid", "/ids/sgid", "/ids/capable", "/ids/acl", "/ids/private", "/ids/dir/below", "/ids/dir/suid2", "/ids/link"}
	user := []string{"--user", "1000"}
	r := answer[reported](t, m.exec(t, "a", user, append([]string{"/ids/suid", "report"}, paths...)...))
	want := map[string]string{
		"/ids/suid": "104755 0:0", "/ids/sgid": "102755 0:33", "/ids/capable": "100755 0:0", "/ids/acl": "100660 0:0",
		"/ids/private": "100600 1000:1000", "/ids/dir/below": "100644 33:33", "/ids/dir/suid2": "104755 0:0", "/ids/link": "120777 33:33",
	}
	for _, path := range paths {
		if r.Files[path] != want[path] {
			t.Errorf("%s is %q, want %q", path, r.Files[path], want[path])
		}
	}
	status := func(what, program, field, want string) {
		t.Helper()
		r := answer[reported](t, m.exec(t, "a", user, program, "report"))
		if got := strings.Join(strings.Fields(r.Status[field]), " "); got != want {
			t.Errorf("%s has %s %q, want %q", what, field, got, want)
		}
	}
	status("set-user-id program", "/ids/suid", "Uid", "1000 0 0 0")
	status("its hard link", "/ids/dir/suid2", "Uid", "1000 0 0 0")
	status("set-group-id program", "/ids/sgid", "Gid", "1000 33 33 33")
	status("program with a capability", "/ids/capable", "CapEff", "0000000000002000")
	const script = `[ /ids/suid -ef /ids/dir/suid2 ] && echo link; head -c4 /ids/acl | tail -c3; echo; head -c1 /ids/private >/dev/null && echo mine; ls /usr/share 2>/dev/null || echo whiteout`
	if got, want := m.exec(t, "a", user, "sh", "-c", script).Must(t), "link\nELF\nmine\nwhiteout"; got != want {
		t.Errorf("the user sees\n%s\nwant\n%s", got, want)
	}
}
