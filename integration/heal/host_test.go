// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const shimName = rig.Shim

// dir is where each test has its lxcfs.
const dir = "/var/lib/lxcfs"

// patience is for a busy machine; without load everything takes under a second.
const patience = 60 * time.Second

// host is a containerd that the tests share.
type host struct{ *rig.Machine }

var shared *host

// on returns the host, with an OCI runtime, ids for that many containers, and
// further lines of configuration for one test.
func on(t *testing.T, runtime peer.Name, containers int, lines ...string) *host {
	t.Helper()
	if shared == nil {
		shared = &host{rig.SharedMachine(t, rig.Config{})}
	}
	p, err := peer.Get(t.Context(), runtime)
	if err != nil {
		t.Fatal(err)
	}
	shared.Image(t, image.Demo)
	text := strings.Join(lines, "\n") + fmt.Sprintf("\n[runtime]\nbinary = %q\n[ids]\npool = [\"1879048192-%d\"]\n", p.Program(p.Programs()[0]), 1879048192+65536*containers-1) +
		"[annotations]\nallow = [\"io.containerd.runc.v2.group\"]\n"
	rig.Configure(t, text)
	mark := shared.Mark(t)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for id := range strings.FieldsSeq(shared.Ctr(ctx, "containers", "ls", "-q").Stdout) {
			shared.Ctr(ctx, "tasks", "rm", "--force", id)
			shared.Ctr(ctx, "containers", "rm", id)
		}
		if t.Failed() {
			t.Logf("shims:\n%s", strings.Join(shared.Said(t, mark), "\n"))
		}
	})
	return shared
}

// patient are lines of configuration with which containers have all their files when they
// start, however busy the machine is. Not for an lxcfs that hangs: that takes as long then.
const patient = "[lxcfs]\ntimeout_ms = 10000"

// whole counts the files of lxcfs that a container has. Later ones, which are not patient,
// may get them after their start.
func whole(t *testing.T, runtime peer.Name) int {
	t.Helper()
	c := on(t, runtime, 1, patient).start(t, "whole")
	count := len(files(t, c.pid))
	if count < 6 {
		t.Fatalf("files %v", files(t, c.pid))
	}
	c.remove(t)
	return count
}

// limit is the memory of all containers, and shown is what they then see.
const (
	limit = "268435456"
	shown = "MemTotal:         262144 kB"
)

// start starts a container that stays.
func (h *host) start(t *testing.T, id string, flags ...string) container {
	t.Helper()
	h.Ctr(t.Context(), run(h.Image(t, image.Demo), id, flags...)...).Must(t)
	return h.container(t, id)
}

// run are the arguments of ctr that start a container.
func run(reference, id string, flags ...string) []string {
	return slices.Concat([]string{"run", "-d", "--null-io", "--runtime", shimName, "--memory-limit", limit}, flags, []string{reference, id, "sleep", "86400"})
}

// startMany starts containers side by side.
func (h *host) startMany(t *testing.T, many int) (all []container) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(4)
	reference := h.Image(t, image.Demo)
	for i := range many {
		group.Go(func() error { return h.Ctr(t.Context(), run(reference, fmt.Sprint("a", i))...).Err() })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range many {
		all = append(all, h.container(t, fmt.Sprint("a", i)))
	}
	return all
}

func (h *host) container(t *testing.T, id string) container {
	t.Helper()
	return container{h, id, h.Container(id).Pid(t)}
}

type container struct {
	host *host
	id   string
	pid  int
}

func (c container) exec(t *testing.T, script string) rig.Result {
	t.Helper()
	return c.host.Container(c.id).Sh(t, script)
}

// sees compares what a script prints.
func (c container) sees(t *testing.T, script, want string) {
	t.Helper()
	r := c.exec(t, script)
	if got := strings.TrimSpace(r.Stdout); r.Err() != nil || got != want {
		t.Errorf("%s: %s: %q, want %q (%v)", c.id, script, got, want, r.Err())
	}
}

func (c container) remove(t *testing.T) {
	t.Helper()
	c.host.Ctr(t.Context(), "tasks", "rm", "--force", c.id).Must(t)
	c.host.Ctr(t.Context(), "containers", "rm", c.id).Must(t)
}

// files counts the mounts of lxcfs of a process by place.
func files(t *testing.T, pid int) map[string]int { t.Helper(); return mounts(t, pid, 4) }

// servers counts them by their server's device, as "MAJOR:MINOR".
func servers(t *testing.T, pid int) map[string]int { t.Helper(); return mounts(t, pid, 2) }

// mounts counts the mounts of lxcfs of a process by a field of mountinfo.
func mounts(t *testing.T, pid, field int) map[string]int {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for line := range bytes.Lines(table) {
		if bytes.Contains(line, []byte(" - fuse.lxcfs ")) {
			found[string(bytes.Fields(line)[field])]++
		}
	}
	return found
}

// until waits until a process has that many files of lxcfs.
func until(t *testing.T, pid, count int) {
	t.Helper()
	begin := time.Now()
	var got map[string]int
	if !rig.Within(patience, func() bool { got = files(t, pid); return len(got) == count }) {
		t.Fatalf("process %d has %v, want %d", pid, got, count)
	}
	t.Logf("process %d has %d files after %v", pid, count, time.Since(begin).Round(10*time.Millisecond))
}

// hostTotal is the first line of the host's own meminfo.
func hostTotal(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return first
}

const total = "head -n1 /proc/meminfo"

// unmount takes a dead lxcfs away, as whoever starts a new one must.
func unmount(t *testing.T) {
	t.Helper()
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
