// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// nestings are the values of the key nesting.
var nestings = []string{"full", "off"}

// TestSpecNamespaces proves that a container has all namespaces of its own, that
// what is mounted in it belongs to its root, and that its root can reach it.
func TestSpecNamespaces(t *testing.T) {
	for _, runtime := range ociRuntimes {
		for _, nesting := range nestings {
			t.Run(string(runtime)+"/"+nesting, func(t *testing.T) {
				rig.Require(t, rig.Root)
				m := demoMachine(t, runtime, fmt.Sprintf("nesting = %q", nesting))
				own := []string{"/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/dev/pts/ptmx", "/dev/fd", "/etc"}
				m.start(t, "a", withInside(t), "sleep", "1000")
				r := answer[reported](t, m.exec(t, "a", nil, append([]string{"/inside", "report"}, own...)...))
				for name, link := range r.Namespaces {
					host, err := os.Readlink("/proc/self/ns/" + name)
					if err != nil {
						t.Fatal(err)
					}
					if link == host {
						t.Errorf("%s namespace is the host's", name)
					}
				}
				for _, path := range own {
					want := " 0:0"
					if path == "/dev/mqueue" && strings.HasPrefix(string(runtime), "runc") {
						// runc makes the ipc namespace, and this with it, before it
						// takes the container's group, and 1.1 its user.
						want = " 0:65534"
						if runtime == peer.Runc11 {
							want = " 65534:65534"
						}
					}
					if !strings.HasSuffix(r.Files[path], want) {
						t.Errorf("%s is %q, want it to belong to root", path, r.Files[path])
					}
				}
				checkBundle(t, m, checkRange(t, m.pid(t, "a")))
			})
		}
	}
}

// checkBundle wants the bundle's directory to be open to the container's root
// and nobody else.
func checkBundle(t *testing.T, m machine, root int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(m.State+"/io.containerd.runtime.v2.task/default/a", &st); err != nil {
		t.Fatal(err)
	}
	if mode := st.Mode & 0o7777; mode != 0o710 || st.Uid != 0 || int(st.Gid) != root {
		t.Errorf("bundle has mode %o and owner %d:%d, want 710 and 0:%d", mode, st.Uid, st.Gid, root)
	}
}

// TestHookReadsSpec proves that a hook which runs as the container's root reads the
// spec in the bundle, by which it finds the rootfs, as those of CDI devices do.
func TestHookReadsSpec(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			config := m.bundle(t, tinyRootfs(t, 0), func(s *specs.Spec) {
				s.Process.Args = []string{"/inside", "report"}
				const script = `exec grep -q ociVersion "$(sed 's/.*"bundle": *"\([^"]*\)".*/\1/')/config.json"`
				s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}}
			})
			t.Cleanup(func() { m.Container("a").Remove(t) })
			if r := m.Output(t, "run", "--rm", "--runtime", shimName, "--config", config, "a"); r.Code != 0 {
				t.Errorf("status %d: %s", r.Code, r.Stderr)
			}
		})
	}
}

// TestSpecSysctl proves that ping_group_range, which containerd and Docker set
// beyond every container's ids, is repaired, and that other sysctls are set.
func TestSpecSysctl(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			config := m.bundle(t, tinyRootfs(t, 0), func(s *specs.Spec) {
				s.Process.Args = []string{"/inside", "report", "sysctl:net.ipv4.ping_group_range", "sysctl:net.ipv4.ip_unprivileged_port_start", "sysctl:kernel.shmmni"}
				s.Linux.Sysctl = map[string]string{
					"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "77",
				}
			})
			t.Cleanup(func() { m.Container("a").Remove(t) })
			r := answer[reported](t, m.Output(t, "run", "--rm", "--runtime", shimName, "--config", config, "a"))
			want := map[string]string{
				"net.ipv4.ping_group_range": "0 65535", "net.ipv4.ip_unprivileged_port_start": "80", "kernel.shmmni": "77",
			}
			for name, value := range want {
				if r.Sysctls[name] != value {
					t.Errorf("%s is %q, want %q", name, r.Sysctls[name], value)
				}
			}
		})
	}
}

// TestSpecUser proves that a user or group beyond the container's ids is refused
// with the reason and the fix, which works.
func TestSpecUser(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			const sentence = "is outside the container's id range; use a smaller id or give the container more ids (ids.size)"
			for user, what := range map[string]string{"65536:0": "user 65536 ", "0:70000": "group 70000 "} {
				r := m.run(t, []string{"--user", user}, "true")
				if r.Code == 0 || !strings.Contains(r.Stderr, what+sentence) {
					t.Errorf("run as %s: status %d, stderr %q", user, r.Code, r.Stderr)
				}
			}
			if got := m.run(t, []string{"--user", "65535:65535"}, "sh", "-c", "id -u; id -g").Must(t); got != "65535\n65535" {
				t.Errorf("the last user is %q", got)
			}
			m.start(t, "a", nil, "sleep", "1000")
			r := m.exec(t, "a", []string{"--user", "65536"}, "true")
			if r.Code == 0 || !strings.Contains(r.Stderr, "user 65536 "+sentence) {
				t.Errorf("exec: status %d, stderr %q", r.Code, r.Stderr)
			}
			m.Container("a").Remove(t)
			configure(t, runtime, "[ids]\nsize = 131072")
			if got := m.run(t, []string{"--user", "70000:70000"}, "sh", "-c", "id -u; id -g").Must(t); got != "70000\n70000" {
				t.Errorf("user 70000 of a container with more ids is %q", got)
			}
		})
	}
}

// TestSpecNetworkHost proves that a container in the host's network cannot
// administer it, and is told from one that may not be there at all.
func TestSpecNetworkHost(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			const script = "ip -o link show node0; ip link add d0 type bridge 2>&1; touch /sys/x 2>&1; mount -o remount,rw /sys 2>&1; mount -o remount,bind,rw /sys 2>&1; ls /sys/fs/cgroup >/dev/null && echo cgroups"
			r := m.run(t, []string{"--net-host"}, "sh", "-c", script)
			for _, want := range []string{"node0", "RTNETLINK answers: Operation not permitted", "Read-only file system"} {
				if !strings.Contains(r.Stdout, want) {
					t.Errorf("container printed %q, want %q in it", r.Stdout, want)
				}
			}
			if strings.Count(r.Stdout, "permission denied") != 2 {
				t.Errorf("a remount of /sys was not refused: %q", r.Stdout)
			}
			if w := strings.Join(m.warnings(t), "\n"); strings.Count(w, "the host's network namespace") != 1 {
				t.Errorf("warnings are %s", w)
			}
			configure(t, runtime, `foreign_netns = "refuse"`)
			if r := m.run(t, []string{"--net-host"}, "true"); r.Code == 0 || !strings.Contains(r.Stderr, `foreign_netns is "refuse"`) {
				t.Errorf("status %d, stderr %q", r.Code, r.Stderr)
			}
		})
	}
}

// TestSpecRefused proves that what contradicts a user namespace is refused with
// a reason.
func TestSpecRefused(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15)
	for _, test := range []struct {
		name    string
		options []string
		want    string
	}{
		{"host pid namespace", []string{"--with-ns", "pid:/proc/1/ns/pid"}, "pid namespace \"/proc/1/ns/pid\" belongs to the host's user namespace"},
		{"host ipc namespace", []string{"--with-ns", "ipc:/proc/1/ns/ipc"}, "ipc namespace \"/proc/1/ns/ipc\" belongs to the host's user namespace"},
		{"unknown annotation", []string{"--annotation", "io.containerd.isolate.nestin=off"}, "io.containerd.isolate.nestin"},
		{"annotation that is not allowed", []string{"--annotation", "io.containerd.isolate.nesting=off"}, "annotations.allow"},
	} {
		r := m.run(t, test.options, "true")
		if r.Code == 0 || !strings.Contains(r.Stderr, test.want) {
			t.Errorf("%s: status %d, stderr %q, want %q in it", test.name, r.Code, r.Stderr, test.want)
		}
	}
	configure(t, peer.Runc15, "[annotations]\nallow = [\"nesting\"]")
	got := m.run(t, slices.Concat(withInside(t), []string{"--annotation", "io.containerd.isolate.nesting=off"}), "/inside", "report")
	if seccomp := answer[reported](t, got).Status["Seccomp"]; seccomp != "0" {
		t.Errorf("an allowed annotation has no effect: Seccomp is %q", seccomp)
	}
}
