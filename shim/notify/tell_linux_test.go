// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fusetest"
	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// asked has the container ask once, and fails if it is told something else.
func (c *container) asked(t *testing.T, o order, want string) {
	t.Helper()
	if a := c.do(t, o); len(a.Told) != 1 || a.Told[want] == 0 {
		t.Errorf("%s: told %v, want %s", o.Ask, a.Told, want)
	}
}

// TestTell: what sysinfo(2) tells is whole, or the kernel's own answer.
func TestTell(t *testing.T) {
	c := start(t, nil)
	for ask, want := range map[string]string{
		"plain": "container", "pages": "container", "null": unix.EFAULT.Error(), "hole": unix.EFAULT.Error(),
	} {
		c.asked(t, order{Ask: ask}, want)
	}
	// Beside it inner containers get their views.
	if a := c.do(t, order{}); a.Meminfo != "limited" {
		t.Errorf("saw %q", a.Meminfo)
	}
}

// TestTellNothing: where nothing can be told the kernel tells of the host.
func TestTellNothing(t *testing.T) {
	c := listening(t, nil)
	c.n.tell = func(int) (sysinfo.Info, error) { return sysinfo.Info{}, errors.New("no groups") }
	c.start(t)
	c.asked(t, order{Ask: "plain"}, "host")
}

// TestTellStorm: calls of many threads in a loop make the shim spend no more than a
// tenth of what the container may use. All are answered, by the container's values or by
// the host's, and never by some of both.
func TestTellStorm(t *testing.T) {
	c := start(t, nil)
	c.n.budget.mu.Lock()
	c.n.budget.processors = func() float64 { return 1 }
	c.n.budget.mu.Unlock()
	// It saves up some time again first.
	for deadline := time.Now().Add(10 * time.Second); !c.n.budget.plenty(time.Now()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no time is earned")
		}
	}
	var before, after unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &before)
	began := time.Now()
	a := c.do(t, order{Ask: "storm"})
	took := time.Since(began)
	if err := errors.Join(err, unix.Getrusage(unix.RUSAGE_SELF, &after)); err != nil {
		t.Fatal(err)
	}
	t.Logf("told %v", a.Told)
	if a.Told["container"] < 100 {
		t.Error("the container's values were told too seldom")
	}
	rest := maps.Clone(a.Told)
	delete(rest, "container")
	delete(rest, "host")
	if len(rest) > 0 {
		t.Errorf("also told: %v", rest)
	}
	consumed := func(r *unix.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }
	// A tenth, and what the test itself takes.
	if used := consumed(&after) - consumed(&before) - burst; used > took*3/20 {
		t.Errorf("spent %v in %v, beyond what was saved up", used, took)
	}
	c.asked(t, order{Ask: "plain"}, "host") // the budget is spent
}

// TestTellHungMemory: memory that nobody can write to holds up who asked to have it
// written to, and nobody else for long. It is on a file of the host's: servers of the
// container get no requests of a user that they have no number for (fuse_get_req), so
// the kernel refuses to write there.
func TestTellHungMemory(t *testing.T) {
	c := listening(t, nil)
	dir := filepath.Join(c.dir, "served")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := fusetest.Mount("/dev/fuse", dir, "fuse")
	if err != nil {
		t.Fatal(err)
	}
	server.Size.Store(1 << 16)
	file := filepath.Join(dir, "proc/meminfo")
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	c.start(t)
	c.asked(t, order{Ask: "plain"}, "container")
	server.HangReads.Store(true)
	closed := make(chan error)
	go func() {
		// One hangs, and there is another one.
		for deadline := time.Now().Add(15 * time.Second); len(c.n.pen.living) < 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("nothing hangs")
				break
			}
		}
		closed <- server.Close() // or the container's process could not end
	}()
	a := c.do(t, order{Ask: "hang", Fuse: file})
	if a.Told["container"] != 1 || a.Took > 5*time.Second {
		t.Errorf("told others %v in %v", a.Told, a.Took)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(c.n.pen.living) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process still hangs")
		}
	}
	c.asked(t, order{Ask: "plain"}, "container")
}

// TestScribeTrouble kills and stops the process that writes: the next call is answered.
func TestScribeTrouble(t *testing.T) {
	for signal, want := range map[unix.Signal]string{unix.SIGKILL: "container", unix.SIGSTOP: "host"} {
		t.Run(signal.String(), func(t *testing.T) {
			c := start(t, nil)
			for range 3 {
				c.asked(t, order{Ask: "plain"}, "container")
				hunt(signal, c.cmd.Process.Pid)
				c.asked(t, order{Ask: "plain"}, want)
			}
			c.asked(t, order{Ask: "plain"}, "container")
		})
	}
}

// TestScribeEnds: nothing stays when nobody asks, or when the container has ended.
func TestScribeEnds(t *testing.T) {
	var ended <-chan struct{}
	c := start(t, nil)
	c.asked(t, order{Ask: "plain"}, "container")
	await := func(what string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(10 * scribeIdle):
			t.Fatalf("%s, and the process that writes stays", what)
		}
	}
	ended = c.n.pen.current.ended
	await("nobody asks")
	c.asked(t, order{Ask: "plain"}, "container")
	ended = c.n.pen.current.ended
	c.stop()
	began := time.Now()
	if err := c.n.Close(); err != nil {
		t.Fatal(err)
	}
	await("the notifier is closed")
	if took := time.Since(began); took > scribeIdle/2 {
		t.Errorf("it took %v", took)
	}
}

// BenchmarkTell is a call of sysinfo(2), with what costs nothing to tell.
func BenchmarkTell(b *testing.B) {
	c := start(b, nil)
	c.n.budget.processors = func() float64 { return 1e6 }
	b.ResetTimer()
	var calls atomic.Int64
	for b.Loop() {
		for _, n := range c.do(b, order{Ask: "storm"}).Told {
			calls.Add(int64(n))
		}
	}
	b.ReportMetric(float64(askers*b.N)*float64(stormFor.Microseconds())/float64(calls.Load()), "µs/call")
}
