// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestExec proves that an exec'd process, whose spec containerd sends as the
// client made it, gets what the init process got.
func TestExec(t *testing.T) {
	for _, runtime := range ociRuntimes {
		for _, nesting := range nestings {
			t.Run(string(runtime)+"/"+nesting, func(t *testing.T) {
				rig.Require(t, rig.Root)
				m := demoMachine(t, runtime, fmt.Sprintf("nesting = %q", nesting))
				look := "cat /proc/self/limits"
				if runtime == peer.Runc11 {
					// The Go runtime in runc raises this limit of itself, sometimes
					// after runc's parent process has set it.
					look += " | grep -v 'Max open files'"
				}
				look += "; tr '\\0' '\\n' < /proc/$$/environ | sort"
				m.start(t, "a", append(withInside(t), "--env", "FOO=bar"), "sh", "-c", "("+look+") > /look; /inside report > /report & sleep 1000")
				rig.Eventually(t, "init's report", func() bool { return m.exec(t, "a", nil, "test", "-s", "/report").Code == 0 })
				first := answer[reported](t, m.exec(t, "a", nil, "cat", "/report"))
				again := answer[reported](t, m.exec(t, "a", nil, "/inside", "report"))
				for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"} {
					if first.Status[key] != again.Status[key] {
						t.Errorf("%s is %q in init and %q in exec", key, first.Status[key], again.Status[key])
					}
				}
				for name, link := range first.Namespaces {
					if again.Namespaces[name] != link {
						t.Errorf("%s namespace is %s in init and %s in exec", name, link, again.Namespaces[name])
					}
				}
				// Where root lacks CAP_SYS_RESOURCE the shim limits what runc has started.
				limited := `for i in $(seq 100); do grep -qxF "$(grep 'Max open files' /look)" /proc/self/limits && break; sleep 0.05; done; `
				if r := m.exec(t, "a", nil, "sh", "-c", limited+"("+look+") | diff /look -"); r.Code != 0 {
					t.Errorf("limits or environment differ from init's: %s", r.Stdout)
				}

				user := answer[reported](t, m.exec(t, "a", []string{"--user", "1000:1000", "--cwd", "/tmp"}, "/inside", "report"))
				if user.UID != 1000 || user.GID != 1000 || user.Status["CapBnd"] != first.Status["CapBnd"] || user.Namespaces["user"] != first.Namespaces["user"] {
					t.Errorf("exec as user 1000 is %d:%d with bounding set %s, want %s", user.UID, user.GID, user.Status["CapBnd"], first.Status["CapBnd"])
				}
				if user.Status["CapEff"] != "0000000000000000" {
					t.Errorf("exec as user 1000 has capabilities %s", user.Status["CapEff"])
				}
				if got := m.exec(t, "a", []string{"--cwd", "/srv/data"}, "pwd").Must(t); got != "/srv/data" {
					t.Errorf("exec began in %q", got)
				}
			})
		}
	}
}

// TestExecSession: under crun, exec'd processes shared the session keyring of the
// shim, with those of its other containers too. Each has its own.
func TestExecSession(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime, `annotations.allow = ["io.containerd.runc.v2.group"]`)
			group := append(withInside(t), "--annotation", "io.containerd.runc.v2.group=one")
			seen := map[int]string{}
			for _, id := range []string{"a", "b"} {
				m.start(t, id, group, "sleep", "1000")
				for range 2 {
					ring := answer[int](t, m.exec(t, id, nil, "/inside", "session"))
					if other, shared := seen[ring]; shared || ring == 0 {
						t.Errorf("a process in %s has the session keyring %d, as one in %s", id, ring, other)
					}
					seen[ring] = id
				}
			}
			if n := shims(t); n != 1 {
				t.Errorf("%d shims for two containers of a group", n)
			}
		})
	}
}
