// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// chownStates is where the shim keeps the states of rootfs with moved ids.
const chownStates = "/var/lib/isolate/chown"

func states(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(chownStates + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// moves returns what the shim has said of ids on disk, and forgets it.
func (m *machine) moves(t *testing.T) []string {
	t.Helper()
	said := slices.DeleteFunc(m.said(t), func(line string) bool { return !strings.Contains(line, "isolate: ids on disk") })
	m.logged = m.Mark(t)
	return said
}

func (m machine) restart(t *testing.T, id string) {
	t.Helper()
	m.Ctr(t.Context(), "tasks", "rm", "--force", id)
	m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", id).Must(t)
}

// firstUID is the host id of a running container's root.
func (m machine) firstUID(t *testing.T, id string) string {
	t.Helper()
	fields := strings.Fields(text("/proc/" + m.pid(t, id) + "/uid_map"))
	if len(fields) != 3 {
		t.Fatalf("uid_map of %q is %q", id, fields)
	}
	return fields[1]
}

// TestChownRestart proves that a restart finds its ids where they are, moves them
// if another container has them now, and moves them back once it is mapped.
func TestChownRestart(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15, chowned)
	m.start(t, "a", nil, "sleep", "1000")
	m.exec(t, "a", nil, "sh", "-ec", makeFiles).Must(t)
	first := m.firstUID(t, "a")
	if moves := m.moves(t); len(moves) != 1 {
		t.Errorf("first start: %q", moves)
	}
	m.restart(t, "a")
	if moves := m.moves(t); len(moves) != 0 || m.firstUID(t, "a") != first {
		t.Errorf("restart with ids from %s on, before %s: %q", m.firstUID(t, "a"), first, moves)
	}

	m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
	configure(t, peer.Runc15, chowned, fmt.Sprintf("[ids]\npool = [\"%s-%d\"]", first, number(t, first)+65535))
	m.start(t, "b", nil, "sleep", "1000")
	if got := m.firstUID(t, "b"); got != first {
		t.Fatalf("the other container has ids from %s on, not %s", got, first)
	}
	m.moves(t)
	configure(t, peer.Runc15, chowned)
	m.restart(t, "a")
	if moves := m.moves(t); len(moves) != 1 || m.firstUID(t, "a") == first {
		t.Errorf("restart while another container has its ids, with those from %s on: %q", m.firstUID(t, "a"), moves)
	}
	if got := m.exec(t, "a", nil, "sh", "-ec", seeFiles).Must(t); got != seenFiles {
		t.Errorf("with other ids the container sees\n%s\nwant\n%s", got, seenFiles)
	}
	m.Container("b").Remove(t)

	rig.Require(t, rig.Kernel("5.19"))
	before := len(states(t))
	configure(t, peer.Runc15)
	m.restart(t, "a")
	moves := m.moves(t)
	if len(moves) != 1 || !strings.Contains(moves[0], "ids on disk are the image's again") {
		t.Errorf("mapped restart: %q", moves)
	}
	checkMade(t, m.upper(t, "a"))
	if got := m.exec(t, "a", nil, "sh", "-ec", seeFiles).Must(t); got != seenFiles {
		t.Errorf("mapped again the container sees\n%s\nwant\n%s", got, seenFiles)
	}
	if after := len(states(t)); after != before-1 {
		t.Errorf("%d states, before %d", after, before)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestChownFallback proves that a rootfs which cannot be mapped is refused with
// the setting that helps, and that the setting does.
func TestChownFallback(t *testing.T) {
	for _, kind := range []struct {
		name string
		// make returns a directory on an overlay, which cannot be mapped; the mount
		// point itself could be.
		make func(merged string) string
	}{
		{"directory on an overlay", func(merged string) string { return filepath.Join(merged, "root") }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, peer.Runc15)
			merged := overlayRootfs(t)
			dir := kind.make(merged)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			fillTiny(t, dir, 0)
			argv := []string{"--rm", "--rootfs", "--runtime", shimName, dir, "a", "/inside", "report", "/inside", "/data"}
			refused := m.Output(t, "run", argv...)
			for _, part := range []string{"cannot be id-mapped by kernel", "a file system that can be idmapped", `set rootfs.fallback = "chown"`} {
				if refused.Code == 0 || !strings.Contains(refused.Stderr, part) {
					t.Errorf("refusal does not say %s: status %d, %s", part, refused.Code, refused.Stderr)
				}
			}
			configure(t, peer.Runc15, "[rootfs]\nfallback = \"chown\"")
			r := answer[reported](t, m.Output(t, "run", argv...))
			if r.Files["/inside"] != "100755 0:0" || r.Files["/data"] != "40755 1000:1000" {
				t.Errorf("container sees %v", r.Files)
			}
			first := number(t, strings.Fields(r.UIDMap)[1])
			if got, want := ownerOf(t, filepath.Join(dir, "data")), fmt.Sprintf("%[1]d:%[1]d", first+1000); got != want {
				t.Errorf("/data belongs to %s on disk, want %s", got, want)
			}
		})
	}
}

// TestChownKeepsLayers proves that what several containers share is never changed,
// also by two that start at the same time.
func TestChownKeepsLayers(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15, chowned)
	ids := []string{"a", "b"}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { m.start(t, id, []string{"--allow-new-privs"}, "sleep", "1000") })
	}
	wg.Wait()
	if a, b := m.firstUID(t, "a"), m.firstUID(t, "b"); a == b {
		t.Errorf("both have the ids from %s on", a)
	}
	for _, id := range ids {
		if got := m.exec(t, id, nil, "sh", "-ec", seeImage).Must(t); got != seenImage {
			t.Errorf("container %q sees\n%s\nwant\n%s", id, got, seenImage)
		}
	}
	for _, layer := range layersOf(m.Ctr(t.Context(), "snapshots", "mounts", "/mnt", "a").Must(t)) {
		files := 0
		err := filepath.WalkDir(layer, func(path string, _ os.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			if err == nil && (st.Uid > 65535 || st.Gid > 65535) {
				t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
			}
			files++
			return err
		})
		if err != nil || files < 10 {
			t.Errorf("layer %q has %d files, %v", layer, files, err)
		}
	}
}

// TestChownKilled proves that a shim which is killed while it moves ids, and a
// client that goes away meanwhile, leave nothing that hangs, and that the next
// start goes on from there.
func TestChownKilled(t *testing.T) {
	rig.Require(t, rig.Root)
	// Ids for one container: each start must get those of the one before.
	const pool = "[ids]\npool = [\"1900019712-1900085247\"]"
	m := demoMachine(t, peer.Runc15, mapped, pool)
	m.run(t, nil, "true").Must(t)
	configure(t, peer.Runc15, chowned, pool)
	before := rig.MustSnapshot(t)
	m.Ctr(t.Context(), "containers", "create", "--allow-new-privs", "--runtime", shimName, m.reference, "a", "sleep", "1000").Must(t)
	t.Cleanup(func() { m.Container("a").Remove(t) })
	for _, end := range []struct {
		after  time.Duration
		client bool
	}{{0, false}, {300 * time.Millisecond, false}, {300 * time.Millisecond, true}, {500 * time.Millisecond, false}} {
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan rig.Result, 1)
		go func() { started <- m.Ctr(ctx, "tasks", "start", "--detach", "--null-io", "a") }()
		rig.Eventually(t, "moving ids", func() bool { return m.mounted("a") || len(started) > 0 })
		if !m.mounted("a") {
			t.Fatalf("rootfs was never mounted: %v", (<-started).Err())
		}
		time.Sleep(end.after) // time to move some of them
		if end.client {
			cancel()
		} else {
			killShim(t, "a")
		}
		r := <-started
		cancel()
		if r.Code == 0 {
			t.Fatalf("start was through before it was ended after %v", end.after)
		}
		rig.Eventually(t, "unmounted", func() bool { return !m.mounted("a") && shimOf(t, "a") == 0 })
	}
	m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Must(t)
	if got := m.exec(t, "a", nil, "sh", "-ec", seeImage).Must(t); got != seenImage {
		t.Errorf("the container sees\n%s\nwant\n%s", got, seenImage)
	}
	m.Container("a").Remove(t)
	rig.MustMatch(t, before)
}

// mounted tells whether a container's rootfs is.
func (m machine) mounted(id string) bool {
	dir := m.State + "/io.containerd.runtime.v2.task/default/" + id
	var top, root unix.Stat_t
	return unix.Stat(dir, &top) == nil && unix.Stat(dir+"/rootfs", &root) == nil && top.Dev != root.Dev
}

// layersOf are the lower layers in what "ctr snapshots mounts" prints.
func layersOf(options string) []string {
	_, rest, _ := strings.Cut(options, "lowerdir=")
	list, _, _ := strings.Cut(strings.Fields(rest)[0], ",")
	return strings.Split(list, ":")
}
