// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// TestThousandConcurrent: no range is given out twice to 50 processes that take
// 20 each at the same time, and none is lost when all are killed.
func TestThousandConcurrent(t *testing.T) {
	t.Parallel()
	const processes, each = 50, 20
	dir := filepath.Join(t.TempDir(), "ids")
	// Exactly as many as are wanted, twice: the second round gets all only if
	// the first lost none.
	span := idmap.Span{First: 1 << 24, Size: processes * each * slotSize}
	for round := range 2 {
		holders := make([]*holder, processes)
		errs := make([]error, processes)
		var wg sync.WaitGroup
		for i := range processes {
			wg.Go(func() { holders[i], errs[i] = startHolder(t, dir, each, span, 0, "-") })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		seen := map[idmap.HostID]int{}
		for i, h := range holders {
			for _, id := range h.ids {
				if other, dup := seen[id]; dup {
					t.Errorf("round %d: %d given to processes %d and %d", round, id, other, i)
				}
				if id%slotSize != 0 || id < span.First || uint64(id)+slotSize > span.End() {
					t.Errorf("round %d: %d is not a slot of %v", round, id, span)
				}
				seen[id] = i
			}
		}
		if len(seen) != processes*each {
			t.Errorf("round %d: %d ranges, want %d", round, len(seen), processes*each)
		}
		p := open(t, dir, span)
		_, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0)
		var full *exhaustedError
		if !errors.As(err, &full) || !errors.Is(err, errExhausted) {
			t.Fatalf("round %d: full pool gave %v", round, err)
		}
		if full.InUse != processes*each || full.Total != processes*each {
			t.Errorf("round %d: %d of %d in use", round, full.InUse, full.Total)
		}
		for _, want := range []string{"1000 of 1000", setting, span.String()} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		for _, h := range holders {
			h.stop()
		}
	}
}

func open(t *testing.T, dir string, spans ...idmap.Span) *Pool {
	t.Helper()
	p, err := Open(dir, spans)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func acquire(t *testing.T, p *Pool, owner Owner, size uint32) *Lease {
	t.Helper()
	l, err := p.AcquirePreferred(t.Context(), owner, size, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The garbage collector would close the file of one that nobody names any more.
	t.Cleanup(func() { runtime.KeepAlive(l) })
	return l
}

// TestInitOutlivesShim: the range of a killed shim stays reserved while its
// container's init lives, also as seen by List.
func TestInitOutlivesShim(t *testing.T) {
	t.Parallel()
	span := idmap.Span{First: 1 << 24, Size: slotSize}
	dir := t.TempDir()
	sleep := exec.Command("sleep", "1000")
	sleep.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() { sleep.Process.Kill(); sleep.Wait() }) //nolint:errcheck // killed
	t.Cleanup(end)
	h, err := startHolder(t, dir, 1, span, sleep.Process.Pid, "-")
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, dir, span)
	owner := Owner{Namespace: "test", ID: strconv.Itoa(h.cmd.Process.Pid)}
	h.stop()

	if _, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) {
		t.Fatalf("range of a live init was given away: %v", err)
	}
	entries, err := p.List(t.Context())
	if err != nil || len(entries) != 1 || entries[0].Held || entries[0].InUse == "" || entries[0].Owner.ID != owner.ID {
		t.Fatalf("list %+v, %v", entries, err)
	}

	end()
	acquire(t, p, owner, slotSize)
}

// TestFilesOfTheVersionBefore: it knew no file "free", emptied the files of slots that
// were given back, and looked at init and cgroups only.
func TestFilesOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	init := child(t, 0)
	stat, err := proc.Open(init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := stat.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"lock":     "258",
		"slot.257": "",
		"slot.256": fmt.Sprintf(`{"claim":{"owner":{"namespace":"default","id":"old","cgroups":["/sys/fs/cgroup/none"]},"first":16777216,"size":65536}}
{"bound":{"init":{"pid":%d,"start":%d}}}
`, stat.ID().PID, stat.ID().Start),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, dir, idmap.Span{First: 1 << 24, Size: 3 * slotSize})
	for _, want := range []idmap.HostID{258, 257} {
		if l := acquire(t, p, Owner{}, slotSize); l.First != want*slotSize {
			t.Errorf("got slot %d, want %d", l.First/slotSize, want)
		}
	}
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) {
		t.Errorf("got %v while the first process lives", err)
	}
	kill(init)
	acquire(t, p, Owner{}, slotSize)
}

// TestReusedPID: a process with the recorded pid but another start time is not
// the container's init.
func TestReusedPID(t *testing.T) {
	t.Parallel()
	self, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	r := record{inits: []proc.ID{self.ID()}}
	if r.inUse(t.Context()) == "" {
		t.Error("own process counts as dead")
	}
	r.inits[0].Start++
	if why := r.inUse(t.Context()); why != "" {
		t.Errorf("other process counts as init: %s", why)
	}
}

// TestCgroupOutlivesShim does the same with the kernel's cgroups, of both
// versions if the machine has both.
func TestCgroupOutlivesShim(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	tried := 0
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
			continue
		}
		tried++
		t.Run(root, func(t *testing.T) {
			t.Parallel()
			cgroup := fmt.Sprintf("%s/isolate-test-%d", root, os.Getpid())
			if err := os.MkdirAll(cgroup+"/inner", 0o700); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := errors.Join(unix.Rmdir(cgroup+"/inner"), unix.Rmdir(cgroup)); err != nil {
					t.Error(err)
				}
			})
			sleep := exec.Command("sleep", "1000")
			sleep.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
			if err := sleep.Start(); err != nil {
				t.Fatal(err)
			}
			end := sync.OnceFunc(func() { sleep.Process.Kill(); sleep.Wait() }) //nolint:errcheck // killed
			t.Cleanup(end)
			pid := strconv.Itoa(sleep.Process.Pid)
			if err := os.WriteFile(cgroup+"/inner/cgroup.procs", []byte(pid), 0); err != nil {
				t.Fatal(err)
			}
			span := idmap.Span{First: 1 << 24, Size: slotSize}
			dir := t.TempDir()
			h, err := startHolder(t, dir, 1, span, 0, cgroup)
			if err != nil {
				t.Fatal(err)
			}
			h.stop()
			p := open(t, dir, span)
			if _, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) {
				t.Fatalf("range of a populated cgroup was given away: %v", err)
			}
			end()
			acquire(t, p, Owner{}, slotSize)
		})
	}
	if tried == 0 {
		t.Error("no cgroup hierarchy found")
	}
}

func TestLargeLeases(t *testing.T) {
	t.Parallel()
	span := idmap.Span{First: 1 << 24, Size: 8 * slotSize}
	dir := t.TempDir()
	p := open(t, dir, span)
	one := acquire(t, p, Owner{ID: "one"}, slotSize)
	three := acquire(t, p, Owner{ID: "three"}, 3*slotSize)
	if three.First != one.First+slotSize || three.Size != 3*slotSize {
		t.Errorf("three slots at %d after one at %d", three.First, one.First)
	}
	if m := three.Mapping(); m.UIDs[0].Size != 3*slotSize || m.UIDs[0].Host != three.First {
		t.Errorf("mapping %v", m)
	}
	entries, err := p.List(t.Context())
	if err != nil || len(entries) != 2 || entries[1].Size != 3*slotSize || !entries[1].Held {
		t.Errorf("list %+v, %v", entries, err)
	}
	// Slots 4 to 7 are left: five in a row do not fit, and the end does not
	// join the beginning.
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, 5*slotSize, 0); !errors.Is(err, errExhausted) {
		t.Errorf("five slots: %v", err)
	}
	if err := one.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, 5*slotSize, 0); !errors.Is(err, errExhausted) {
		t.Errorf("five slots around the end: %v", err)
	}
	four := acquire(t, p, Owner{ID: "four"}, 4*slotSize)
	if four.First != span.First+4*slotSize {
		t.Errorf("four slots at %d", four.First)
	}
	if err := errors.Join(three.Release(t.Context()), four.Release(t.Context())); err != nil {
		t.Fatal(err)
	}
	acquire(t, p, Owner{ID: "all"}, 8*slotSize)
	for _, size := range []uint32{0, 1, slotSize + 1} {
		if _, err := p.AcquirePreferred(t.Context(), Owner{}, size, 0); err == nil || errors.Is(err, errExhausted) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

// TestNextFit: a range that was given back is not the next one to be given out.
func TestNextFit(t *testing.T) {
	t.Parallel()
	span := idmap.Span{First: 1 << 24, Size: 3 * slotSize}
	p := open(t, t.TempDir(), span)
	var got []idmap.HostID
	for range 4 {
		l := acquire(t, p, Owner{}, slotSize)
		got = append(got, l.First)
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got[0] == got[1] || got[1] == got[2] || got[0] == got[2] || got[0] != got[3] {
		t.Errorf("order %v", got)
	}
}

// TestLockWaitIsBounded: an Acquire behind a stuck process ends with its context.
func TestLockWaitIsBounded(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), defaultSpan)
	stuck, err := p.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := p.AcquirePreferred(ctx, Owner{}, slotSize, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

// TestForeignSlotFile: what cannot be read is not given away, and is shown.
func TestForeignSlotFile(t *testing.T) {
	t.Parallel()
	span := idmap.Span{First: 1 << 24, Size: 2 * slotSize}
	dir := t.TempDir()
	p := open(t, dir, span)
	if err := os.WriteFile(filepath.Join(dir, slotName(1<<24/slotSize)), []byte("junk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l := acquire(t, p, Owner{}, slotSize); l.First != span.First+slotSize {
		t.Errorf("unreadable slot was given away: %d", l.First)
	}
	entries, err := p.List(t.Context())
	if err != nil || len(entries) != 2 || entries[0].Err == nil {
		t.Errorf("list %+v, %v", entries, err)
	}
}

func TestReleaseWhileInUse(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), idmap.Span{First: 1 << 24, Size: slotSize})
	l := acquire(t, p, Owner{ID: "x"}, slotSize)
	if err := l.Bound(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("release with a live init: %v", err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("second release: %v", err)
	}
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) {
		t.Errorf("given away: %v", err)
	}
}

func BenchmarkAcquire(b *testing.B) {
	p, err := Open(b.TempDir(), []idmap.Span{defaultSpan})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l, err := p.AcquirePreferred(b.Context(), Owner{Namespace: "n", ID: "i"}, slotSize, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A range is reserved until the last of those that share it is gone.
func TestShare(t *testing.T) {
	t.Parallel()
	p, err := Open(t.TempDir(), []idmap.Span{{First: 1 << 20, Size: slotSize}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.AcquirePreferred(t.Context(), Owner{Namespace: "n", ID: "pod"}, slotSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Share(t.Context(), first.Mapping(), Owner{Namespace: "n", ID: "app"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AcquirePreferred(t.Context(), Owner{Namespace: "n", ID: "other"}, slotSize, 0); !errors.Is(err, errExhausted) {
		t.Fatalf("got %v while the range is shared, want errExhausted", err)
	}
	mapping := second.Mapping()
	if err := second.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Share(t.Context(), mapping, Owner{Namespace: "n", ID: "late"}); err == nil {
		t.Error("shared a range that nobody has")
	}
	third, err := p.AcquirePreferred(t.Context(), Owner{Namespace: "n", ID: "other"}, slotSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOpenKeepsTheWayOpen: crun 1.8 looks volumes up as the container's root,
// below the directory that the pool made for itself alone.
func TestOpenKeepsTheWayOpen(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "isolate")
	if _, err := Open(filepath.Join(parent, ".ids"), []idmap.Span{{First: 1879048192, Size: slotSize}}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{parent: 0o711, filepath.Join(parent, ".ids"): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

// TestHeldRangesAreNotWalkedOver: a range is given out as fast with 4000 held ones
// as with none, since those are not looked at.
func TestHeldRangesAreNotWalkedOver(t *testing.T) {
	t.Parallel()
	span := idmap.Span{First: 1 << 24, Size: 8 * slotSize}
	dir := t.TempDir()
	p := open(t, dir, span)
	for range 5 {
		l := acquire(t, p, Owner{}, slotSize)
		// Whoever opens it now gets an error.
		name := filepath.Join(dir, slotName(uint32(l.First)/slotSize))
		if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	// From the beginning.
	if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if l := acquire(t, p, Owner{}, slotSize); l.First != span.First+5*slotSize {
		t.Errorf("got %d", l.First)
	}
}

// BenchmarkAcquireBeside measures the worst case beside 4000 held ranges: the search
// begins before all of them.
func BenchmarkAcquireBeside(b *testing.B) {
	dir := b.TempDir()
	p, err := Open(dir, []idmap.Span{defaultSpan})
	if err != nil {
		b.Fatal(err)
	}
	for range 4000 {
		if _, err := p.AcquirePreferred(b.Context(), Owner{Namespace: "n", ID: "i"}, slotSize, 0); err != nil {
			b.Fatal(err)
		}
	}
	var worst time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := os.Truncate(filepath.Join(dir, "lock"), 0); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begin := time.Now()
		l, err := p.AcquirePreferred(b.Context(), Owner{Namespace: "n", ID: "i"}, slotSize, 0)
		worst = max(worst, time.Since(begin))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
}

// BenchmarkFindUsers measures a look at all processes of the machine.
func BenchmarkFindUsers(b *testing.B) {
	for b.Loop() {
		if _, err := findUsers(); err != nil {
			b.Fatal(err)
		}
	}
}
