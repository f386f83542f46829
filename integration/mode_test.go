// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestModeOwn proves that containers that run at the same time, started at the
// same time, have ranges of ids of their own, and run with them.
func TestModeOwn(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15)
	const n = 12
	var group sync.WaitGroup
	results := make([]rig.Result, n)
	for i := range n {
		id := fmt.Sprintf("own%d", i)
		t.Cleanup(func() { m.Container(id).Remove(t) })
		group.Go(func() {
			results[i] = m.Ctr(t.Context(), "run", "--detach", "--null-io", "--runtime", shimName, m.reference, id, "sleep", "1000")
		})
	}
	group.Wait()
	taken := map[int]string{}
	for i, r := range results {
		r.Must(t)
		id := fmt.Sprintf("own%d", i)
		pid := m.pid(t, id)
		first := checkRange(t, pid)
		if other, ok := taken[first]; ok {
			t.Errorf("%s and %s have the same ids from %d on", id, other, first)
		}
		taken[first] = id
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+pid, &st); err != nil {
			t.Fatal(err)
		}
		if int(st.Uid) != first || int(st.Gid) != first {
			t.Errorf("init of %s runs as %d:%d on the host, want %d", id, st.Uid, st.Gid, first)
		}
	}
}

// checkRange wants a process's ids to be one aligned range of 65536, outside what
// distributions give to users, the same for users and groups, and returns the
// first.
func checkRange(t *testing.T, pid string) int {
	t.Helper()
	f := strings.Fields(text("/proc/" + pid + "/uid_map"))
	if len(f) != 3 || f[0] != "0" || f[2] != "65536" || !slices.Equal(f, strings.Fields(text("/proc/"+pid+"/gid_map"))) {
		t.Fatalf("ids of process %s are %q", pid, f)
	}
	first, err := strconv.Atoi(f[1])
	if err != nil || first%65536 != 0 || first < 1879048192 || first > 2147352575 {
		t.Errorf("range begins with %q: %v", f[1], err)
	}
	return first
}

// TestModeAdopt proves that a mapping which the client made is used as it is:
// ctr's, with layers that the snapshotter maps.
func TestModeAdopt(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			shared := shortDir(t)
			if err := os.Chown(shared, 100000, 100000); err != nil {
				t.Fatal(err)
			}
			options := slices.Concat(withInside(t), volume(shared, "/volume", "rbind:rw"),
				[]string{"--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--remap-labels"})
			m.start(t, "a", options, "sleep", "1000")
			r := answer[reported](t, m.exec(t, "a", nil, "/inside", "report", "/etc/passwd", "/home/user", "/volume", "/root"))
			want := map[string]string{"/etc/passwd": "100644 0:0", "/home/user": "40755 1000:1000", "/volume": "40755 0:0", "/root": "40700 0:0"}
			for path, owner := range want {
				if r.Files[path] != owner {
					t.Errorf("container sees %s as %q, want %q", path, r.Files[path], owner)
				}
			}
			if r.UIDMap != "0 100000 65536" || r.GIDMap != "0 100000 65536" {
				t.Errorf("ids are %q and %q", r.UIDMap, r.GIDMap)
			}
			m.exec(t, "a", nil, "touch", "/new", "/volume/new").Must(t)
			for _, path := range []string{m.upper(t, "a") + "/new", shared + "/new"} {
				if got := ownerOf(t, path); got != "100000:100000" {
					t.Errorf("%s belongs to %s, want the client's own ids", path, got)
				}
			}
			if said := strings.Join(m.said(t), "\n"); !strings.Contains(said, "mode=adopt") {
				t.Errorf("mode is not adopt: %s", said)
			}
		})
	}
}

// TestModeAdoptIDsOfTheHost proves that no client makes a container of the host's
// own ids: its root's, or an account's.
func TestModeAdoptIDsOfTheHost(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15)
	for mapping, what := range map[string]string{"0:0:65536": "id 0 is its root", "0:1:65536": "/etc/passwd line"} {
		r := m.run(t, []string{"--uidmap", mapping, "--gidmap", mapping, "--remap-labels"}, "true")
		if r.Code == 0 || !strings.Contains(r.Stderr, what) || !strings.Contains(r.Stderr, "leave the user namespace out") {
			t.Errorf("mapping %s: status %d: %s", mapping, r.Code, r.Stderr)
		}
		m.Container("a").Remove(t)
	}
}

// TestBrokenLineOfAnotherUser proves that a line in the account files which nobody
// can read costs a warning, and no container.
func TestBrokenLineOfAnotherUser(t *testing.T) {
	rig.Require(t, rig.Root)
	const file = "/etc/subuid"
	before, err := os.ReadFile(file)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := os.WriteFile(file, before, 0o644)
		if absent {
			err = os.Remove(file)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(file, append(slices.Clone(before), "alice:100000\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	m := demoMachine(t, peer.Runc15)
	m.run(t, nil, "true").Must(t)
	if w := strings.Join(m.warnings(t), "\n"); !strings.Contains(w, "/etc/subuid line") || !strings.Contains(w, "was ignored") {
		t.Errorf("warnings are %q", w)
	}
}

// TestModeAdoptBundle proves that a bundle made by hand runs unchanged: a user
// namespace in its config.json, and a rootfs chowned beforehand.
func TestModeAdoptBundle(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			root := tinyRootfs(t, 65536)
			config := m.bundle(t, root, func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 65536, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
				s.Process.Args = []string{"/inside", "report", "/inside", "/data", "/dev/shm"}
			})
			t.Cleanup(func() { m.Container("a").Remove(t) })
			m.Ctr(t.Context(), "containers", "create", "--runtime", shimName, "--config", config, "a").Must(t)
			r := answer[reported](t, m.Output(t, "tasks start", "a"))
			if r.UIDMap != "0 65536 65536" || r.Files["/inside"] != "100755 0:0" || r.Files["/data"] != "40755 1000:1000" || r.Files["/dev/shm"] != "41777 0:0" {
				t.Errorf("container sees ids %q and files %v", r.UIDMap, r.Files)
			}
			if got := ownerOf(t, root+"/data"); got != "66536:66536" {
				t.Errorf("rootfs was changed: data belongs to %s", got)
			}
		})
	}
}

// bundle writes a config.json for a rootfs: ctr's default, changed.
func (m machine) bundle(t *testing.T, root string, change func(*specs.Spec)) string {
	t.Helper()
	var s specs.Spec
	if err := json.Unmarshal([]byte(m.Ctr(t.Context(), "oci", "spec").Must(t)), &s); err != nil {
		t.Fatal(err)
	}
	s.Root = &specs.Root{Path: root}
	s.Process.Terminal = false
	s.Linux.CgroupsPath = "/default/a"
	change(&s)
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestModeJoin proves that the containers of a pod share ids, and their user
// namespace if the administrator wants that, and that the ids are not given away
// before the last one has gone.
func TestModeJoin(t *testing.T) {
	for _, runtime := range ociRuntimes {
		for _, pods := range []string{"apart", "shared"} {
			t.Run(string(runtime)+"/"+pods, func(t *testing.T) {
				rig.Require(t, rig.Root)
				m := demoMachine(t, runtime, fmt.Sprintf("pods = %q", pods), "[ids]\npool = [\"1900281856-1900412927\"]", // two ranges
					"[annotations]\nallow = [\"io.containerd.runc.v2.group\"]")
				pod := append(withInside(t), "--annotation", "io.containerd.runc.v2.group=pod")
				m.start(t, "pod", pod, "sleep", "1000")
				sandbox := m.pid(t, "pod")
				// As the CRI does, with the pod's network, ipc and uts namespaces.
				for kind, file := range map[string]string{"network": "net", "ipc": "ipc", "uts": "uts"} {
					pod = append(pod, "--with-ns", kind+":/proc/"+sandbox+"/ns/"+file)
				}
				m.start(t, "member", pod, "sleep", "1000")
				if n := shims(t); n != 1 {
					t.Errorf("%d shims for one pod", n)
				}
				one := answer[reported](t, m.exec(t, "pod", nil, "/inside", "report"))
				two := answer[reported](t, m.exec(t, "member", nil, "/inside", "report", "/home/user"))
				if one.UIDMap != two.UIDMap || one.GIDMap != two.GIDMap || two.Files["/home/user"] != "40755 1000:1000" {
					t.Errorf("ids are %q and %q, files %v", one.UIDMap, two.UIDMap, two.Files)
				}
				for name, shared := range map[string]bool{"user": pods == "shared" || runtime == peer.Runc11, "net": true, "ipc": true, "uts": true, "mnt": false, "pid": false, "cgroup": false} {
					if (one.Namespaces[name] == two.Namespaces[name]) != shared {
						t.Errorf("%s namespaces %s and %s, want shared %v", name, one.Namespaces[name], two.Namespaces[name], shared)
					}
				}
				m.exec(t, "pod", nil, "sh", "-ec", "hostname ours; ip link add d0 type bridge").Must(t)
				if got := m.exec(t, "member", nil, "sh", "-ec", "hostname; ls /sys/class/net; touch /new; stat -c %u:%g /new; ls -d /dev/mqueue").Must(t); got != "ours\nd0\nlo\n0:0\n/dev/mqueue" {
					t.Errorf("the member printed %q", got)
				}
				for _, script := range []string{"hostname mine", "ip link add d1 type bridge", "mount -t sysfs none /mnt"} {
					if works := m.exec(t, "member", nil, "sh", "-c", script).Code == 0; works != (pods == "shared") {
						t.Errorf("%s: works: %v", script, works)
					}
				}

				m.Container("pod").Remove(t)
				other := func(id string) string {
					return m.Output(t, "run", "--rm", "--runtime", shimName, m.reference, id, "cat", "/proc/self/uid_map").Stdout
				}
				for range 2 {
					if got := strings.Join(strings.Fields(other("other")), " "); got == two.UIDMap || got == "" {
						t.Errorf("another container got ids %q while a member of the pod runs with %q", got, two.UIDMap)
					}
				}
				if got := m.exec(t, "member", nil, "echo", "here").Must(t); got != "here" {
					t.Errorf("the member printed %q after the pod's sandbox was removed", got)
				}
				for _, w := range m.warnings(t) {
					if runtime != peer.Runc11 || pods == "shared" || !strings.Contains(w, "use runc 1.3 or later") {
						t.Errorf("warnings: %q", w)
					}
				}
			})
		}
	}
}
