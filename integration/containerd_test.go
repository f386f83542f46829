// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestContainerd has the one binary started by each containerd, by name and by
// path, and leads a container through its life: run, exec, metrics, pause, a
// restart of containerd, the death of the shim, delete.
func TestContainerd(t *testing.T) {
	for _, c := range []struct {
		containerd peer.Name
		version    int // of the task API
	}{
		{peer.Containerd24, 3},
		{peer.Containerd22, 2},
		{peer.Containerd17, 2},
	} {
		t.Run(string(c.containerd), func(t *testing.T) {
			rig.Require(t, rig.Root)
			rig.Configure(t, oneRange)
			h := hostOf(t, c.containerd)
			for name, runtime := range map[string]string{"name": shimName, "path": filepath.Join(h.Bin, "containerd-shim-isolate-v1")} {
				t.Run(name, func(t *testing.T) { life(t, h, runtime, c.version) })
			}
		})
	}
}

func life(t *testing.T, h host, runtime string, version int) {
	const ours = "0 1879048192      65536" // what /proc/self/uid_map shows
	before := rig.MustSnapshot(t)
	ctr := func(args ...string) rig.Result { return h.Ctr(t.Context(), args...) }

	// Output and exit status come through.
	r := ctr("run", "--rm", "--runtime", runtime, h.ref, "a", "sh", "-c", "cat /proc/self/uid_map; echo error >&2; sleep 0.5; exit 7")
	if strings.TrimSpace(r.Stdout) != ours || !strings.Contains(r.Stderr, "error\n") || r.Code != 7 {
		t.Errorf("run: status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
	}
	rig.MustMatch(t, before)

	start := func() {
		ctr("run", "-d", "--null-io", "--runtime", runtime, "--memory-limit", "268435456", h.ref, "a", "sleep", "86400").Must(t)
	}
	start()
	if got := speaks(t, h, "a"); got != version {
		t.Errorf("containerd speaks version %d of the task API, want %d", got, version)
	}
	exec := func(when string) {
		// An exec'd process is in the user namespace, and its status comes back.
		r := h.exec(t, "a", "sh", "-c", "cat /proc/self/uid_map; exit 5")
		if strings.TrimSpace(r.Stdout) != ours || r.Code != 5 {
			t.Errorf("exec %s: status %d, stdout %q, stderr %q", when, r.Code, r.Stdout, r.Stderr)
		}
	}
	exec("at first")
	// The limit is memory.usage.limit on cgroup v1, memory.usage_limit on v2.
	if text := ctr("tasks", "metrics", "--format", "json", "a").Must(t); !json.Valid([]byte(text)) || !strings.Contains(text, "268435456") {
		t.Errorf("metrics: %s", text)
	}
	state := func(want string) {
		t.Helper()
		if got := ctr("tasks", "ls").Must(t); !strings.Contains(got, want) {
			t.Errorf("tasks are %q, want one %s", got, want)
		}
	}
	ctr("tasks", "pause", "a").Must(t)
	state("PAUSED")
	ctr("tasks", "resume", "a").Must(t)
	state("RUNNING")

	shim := shimOf(t, "a")
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := shimOf(t, "a"); shim == 0 || now != shim {
		t.Errorf("the shim was process %d and is %d", shim, now)
	}
	exec("after a restart")
	ctr("tasks", "kill", "--signal", "SIGKILL", "a").Must(t)
	rig.Eventually(t, "end", func() bool { return strings.Contains(ctr("tasks", "ls").Stdout, "STOPPED") })
	h.Container("a").Remove(t)
	rig.MustMatch(t, before)

	start()
	killShim(t, "a")
	h.Container("a").Remove(t)
	rig.MustMatch(t, before)
	ctr("run", "--rm", "--runtime", runtime, h.ref, "a", "true").Must(t)
	rig.MustMatch(t, before)
}

// speaks returns the version of the task API that containerd uses with a
// container's shim.
func speaks(t *testing.T, h host, id string) int {
	t.Helper()
	bundle := filepath.Join(h.State, "io.containerd.runtime.v2.task/default", id)
	text, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if errors.Is(err, fs.ErrNotExist) {
		// containerd 1.7 writes an address alone: there is one version.
		if _, err := os.Stat(filepath.Join(bundle, "address")); err != nil {
			t.Fatal(err)
		}
		return 2
	}
	if err != nil {
		t.Fatal(err)
	}
	var bootstrap struct{ Version int }
	if err := json.Unmarshal(text, &bootstrap); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return bootstrap.Version
}

// TestContainerdGroups puts containers into one shim, as a pod's are, in each
// version of the task API.
func TestContainerdGroups(t *testing.T) {
	for _, containerd := range []peer.Name{peer.Containerd24, peer.Containerd22, peer.Containerd17} {
		t.Run(string(containerd), func(t *testing.T) {
			rig.Require(t, rig.Root)
			rig.Configure(t, "[ids]\npool = [\"1879048192-1879179263\"]\n[annotations]\nallow = [\"io.containerd.runc.v2.group\"]\n")
			h := hostOf(t, containerd)
			// The slots' files stay: both containers of the rehearsal have had one.
			group := []string{"--annotation", "io.containerd.runc.v2.group=together"}
			rehearse := func() {
				for _, id := range []string{"a", "b"} {
					h.start(t, id, group...)
				}
			}
			rehearse()
			h.Container("a").Remove(t)
			h.Container("b").Remove(t)
			before := rig.MustSnapshot(t)
			rehearse()
			if a, b := shimOf(t, "a"), shimOf(t, "b"); a == 0 || b != 0 {
				t.Errorf("shims are processes %d and %d", a, b)
			}
			maps := map[string]bool{}
			for _, id := range []string{"a", "b"} {
				maps[h.exec(t, id, "cat", "/proc/self/uid_map").Must(t)] = true
			}
			if len(maps) != 2 {
				t.Errorf("they have the ids %v", maps)
			}
			// The first goes, and the second lives on.
			h.Container("a").Remove(t)
			alive := func() {
				t.Helper()
				if got := h.exec(t, "b", "echo", strconv.Itoa(2)).Must(t); got != "2" {
					t.Errorf("the second printed %q", got)
				}
			}
			alive()
			// One that cannot be made leaves nothing in the shim it would have shared.
			one := rig.MustSnapshot(t)
			refused(t, h.run(t, "a", append(group, "--mount", "type=bind,src=/nope,dst=/v,options=rbind"), "true"), "/nope")
			refused(t, h.run(t, "a", group, "/nope"), "/nope")
			rig.MustMatch(t, one)
			alive()
			h.start(t, "a", group...)
			killShim(t, "a")
			h.Container("a").Remove(t)
			h.Container("b").Remove(t)
			rig.MustMatch(t, before)
		})
	}
}
