// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const shimName = "io.containerd.isolate.v1"

// dir is where each test has its lxcfs.
const dir = "/var/lib/lxcfs"

// patience is for a busy machine; without load everything takes under a second.
const patience = 60 * time.Second

// host is a containerd that the tests share.
type host struct {
	*rig.Node
	refs map[image.Name]string
}

var shared *host

// on returns the host, with an OCI runtime, ids for that many containers, and
// further lines of configuration for one test.
func on(t *testing.T, runtime peer.Name, containers int, lines ...string) *host {
	t.Helper()
	if shared == nil {
		node, err := rig.StartContainerd(context.WithoutCancel(t.Context()), rig.Config{Isolate: true})
		if err != nil {
			t.Fatal(err)
		}
		shared = &host{Node: node, refs: map[image.Name]string{}}
	}
	p, err := peer.Get(t.Context(), runtime)
	if err != nil {
		t.Fatal(err)
	}
	shared.image(t, image.Demo)
	const file = "/etc/isolate/config.toml"
	text := strings.Join(lines, "\n") + fmt.Sprintf("\n[runtime]\nbinary = %q\n[ids]\npool = [\"1879048192-%d\"]\n", p.Program(p.Programs()[0]), 1879048192+65536*containers-1) +
		"[annotations]\nallow = [\"io.containerd.runc.v2.group\"]\n"
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	mark := len(shared.log(t))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for id := range strings.FieldsSeq(shared.Ctr(ctx, "containers", "ls", "-q").Stdout) {
			shared.Ctr(ctx, "tasks", "rm", "--force", id)
			shared.Ctr(ctx, "containers", "rm", id)
		}
		if t.Failed() {
			t.Logf("shims:\n%s", strings.Join(said(shared.log(t)[mark:]), ""))
		}
		if err := os.RemoveAll(file); err != nil { // one test has two configurations
			t.Error(err)
		}
	})
	return shared
}

func (h *host) image(t *testing.T, name image.Name) string {
	t.Helper()
	if _, ok := h.refs[name]; !ok {
		h.refs[name] = h.MustImport(t, name)
	}
	return h.refs[name]
}

func (h *host) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// said are the shims' lines of a log.
func said(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "isolate: ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// limit is the memory of all containers, and shown is what they then see.
const (
	limit = "268435456"
	shown = "MemTotal:         262144 kB"
)

// start starts a container that stays.
func (h *host) start(t *testing.T, id string, flags ...string) container {
	t.Helper()
	h.Ctr(t.Context(), slices.Concat([]string{"run", "-d", "--null-io", "--runtime", shimName, "--memory-limit", limit}, flags, []string{h.image(t, image.Demo), id, "sleep", "86400"})...).Must(t)
	return h.container(t, id)
}

func (h *host) container(t *testing.T, id string) container {
	t.Helper()
	for line := range strings.Lines(h.Ctr(t.Context(), "tasks", "ls").Must(t)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return container{h, id, pid}
		}
	}
	t.Fatalf("container %q has no task", id)
	return container{}
}

type container struct {
	host *host
	id   string
	pid  int
}

func (c container) exec(t *testing.T, script string) rig.Result {
	t.Helper()
	return c.host.Ctr(t.Context(), "tasks", "exec", "--fifo-dir", t.TempDir(), "--exec-id", "e"+strconv.FormatInt(time.Now().UnixNano(), 36), c.id, "sh", "-c", script)
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
func files(t *testing.T, pid int) map[string]int {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for line := range bytes.Lines(table) {
		if bytes.Contains(line, []byte(" - fuse.lxcfs ")) {
			found[string(bytes.Fields(line)[4])]++
		}
	}
	return found
}

// until waits until a process has that many files of lxcfs.
func until(t *testing.T, pid, count int) {
	t.Helper()
	begin := time.Now()
	for deadline := begin.Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := files(t, pid)
		if len(got) == count {
			t.Logf("process %d has %d files after %v", pid, count, time.Since(begin).Round(10*time.Millisecond))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d has %v, want %d", pid, got, count)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
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
