// SPDX-License-Identifier: Apache-2.0

package sysctl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// set sets a sysctl until the test ends.
func set(t *testing.T, name, value string) {
	t.Helper()
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	before, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// TestSysctls has one sysctl after the other too low.
func TestSysctls(t *testing.T) {
	const settings = "[ids]\npool = [\"1900019712-1900085247\"]\n[lxcfs]\nmode = \"off\"\n"
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.MappedLayers)
			rig.Configure(t, settings)
			n := rig.MachineFor(t, rig.Config{Runc: runtime})
			reference := n.Image(t, image.Inner)
			run := func(flags []string, argv ...string) rig.Result {
				return n.Run(t, slices.Concat(flags, []string{reference, "a"}, argv)...)
			}
			run(nil, "true").Must(t)
			before := rig.MustSnapshot(t)
			for _, c := range []struct {
				name, value string
				says        string
			}{
				{"user.max_user_namespaces", "0", "the limit in /proc/sys/user/max_user_namespaces is reached, raise it"},
				{"user.max_mnt_namespaces", "0", "raise user.max_mnt_namespaces (sysctl)"},
				{"fs.mount-max", "1", "raise fs.mount-max (sysctl)"},
				{"user.max_pid_namespaces", "0", "raise user.max_pid_namespaces (sysctl)"},
				{"user.max_net_namespaces", "0", "raise user.max_net_namespaces (sysctl)"},
				{"user.max_cgroup_namespaces", "0", "raise user.max_cgroup_namespaces (sysctl)"},
			} {
				t.Run(c.name, func(t *testing.T) {
					set(t, c.name, c.value)
					r := run(nil, "true")
					if r.Code == 0 || !strings.Contains(r.Stderr, c.says) {
						t.Errorf("status %d, stderr %q, want %q in it", r.Code, r.Stderr, c.says)
					}
					t.Log(strings.TrimSpace(r.Stderr))
				})
				rig.MustMatch(t, before)
			}
			t.Run("fs.nr_open", func(t *testing.T) {
				// Higher limits of those that run stay, and no new process can have one.
				set(t, "fs.nr_open", "4096")
				logged := n.Mark(t)
				got := run(nil, "sh", "-c", "ulimit -Hn").Must(t)
				if got != "4096" {
					t.Errorf("the container may open %s files, want 4096", got)
				}
				if said := n.Since(t, logged); strings.Contains(said, "isolate: RLIMIT_NOFILE") {
					t.Errorf("it warns of what nobody asked for: %s", said)
				}
				run([]string{"--rlimit-nofile", "1024:1048576"}, "true").Must(t)
				const want = "RLIMIT_NOFILE was cut from 1048576 to 4096, the most this host grants (containerd runs without CAP_SYS_RESOURCE, or fs.nr_open is low)"
				if said := n.Since(t, logged); !strings.Contains(said, want) {
					t.Errorf("it does not say %q: %s", want, said)
				}
			})
			run(nil, "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}
