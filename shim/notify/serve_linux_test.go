// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestReadiness(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		revents int16
		want    state
	}{
		{"nothing", 0, idle},
		{"a notification", unix.POLLIN, received},
		{"a notification of the last process", unix.POLLIN | unix.POLLHUP, received},
		{"no process left", unix.POLLHUP, finished},
		{"interrupted", unix.POLLERR, unknown},
		{"interrupted with a notification", unix.POLLERR | unix.POLLIN, received},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := readiness(test.revents); got != test.want {
				t.Errorf("readiness(%#x) = %d, want %d", test.revents, got, test.want)
			}
		})
	}
}

// unpollable is a descriptor that Go's poller has given up.
type unpollable struct{ syscall.RawConn }

func (unpollable) Read(func(uintptr) bool) error { return errors.New("not pollable") }

// TestServeWithoutPoller: when the runtime's poller fails, notifications are
// answered all the same, and the end of the last process is noticed.
func TestServeWithoutPoller(t *testing.T) {
	c := listening(t, nil)
	c.n.wrap = func(raw syscall.RawConn) syscall.RawConn { return unpollable{raw} }
	c.start(t)
	for range 3 {
		if a := c.do(t, order{}); a.Meminfo != "limited" {
			t.Errorf("saw %q", a.Meminfo)
		}
	}
	c.stop()
	c.awaitHeld(t, 0)
}

// TestBadState: a listener that comes with nonsense is served nevertheless.
func TestBadState(t *testing.T) {
	for _, state := range []string{`{"fds":["other"]}`, `{"fds":[]}`, `{"fds":["seccompFd","seccompFd"]}`} {
		t.Run(state, func(t *testing.T) {
			c := listening(t, nil)
			c.state = state
			c.start(t)
			if a := c.do(t, order{}); a.Meminfo != "limited" {
				t.Errorf("saw %q", a.Meminfo)
			}
		})
	}
}

// TestPrepare: the first inner container does not wait for views to be fetched.
func TestPrepare(t *testing.T) {
	c := start(t, nil)
	views, err := c.meminfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.fetched.Store(0)
	if err := c.n.Prepare(views, true); err != nil {
		t.Fatal(err)
	}
	lxcfs.CloseFiles(views)
	if a := c.do(t, order{}); a.Meminfo != "limited" {
		t.Errorf("saw %q", a.Meminfo)
	}
	if clonable(t) && c.fetched.Load() != 0 {
		t.Errorf("views were fetched %d times", c.fetched.Load())
	}
}

// TestPrepareWithoutClones is the way of kernels before 6.15.
func TestPrepareWithoutClones(t *testing.T) {
	for _, likely := range []bool{true, false} {
		t.Run(fmt.Sprintf("likely=%v", likely), func(t *testing.T) {
			c := start(t, nil)
			c.n.store.mu.Lock()
			c.n.store.clone = func([]lxcfs.File) ([]lxcfs.File, error) { return nil, unix.EINVAL }
			c.n.store.mu.Unlock()
			views, err := c.meminfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.fetched.Store(0)
			if err := c.n.Prepare(views, likely); err != nil {
				t.Fatal(err)
			}
			lxcfs.CloseFiles(views)
			c.n.store.fetching.Wait()
			if got := c.fetched.Load() > 0; got != likely {
				t.Errorf("fetched before it was needed: %v, want %v", got, likely)
			}
			if a := c.do(t, order{}); a.Meminfo != "limited" {
				t.Errorf("saw %q", a.Meminfo)
			}
		})
	}
}

// TestChildTrouble kills and stops the processes that graft, as soon as they are
// there: pivot_root works nevertheless, and soon.
func TestChildTrouble(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		t.Run(signal.String(), func(t *testing.T) {
			c := start(t, nil)
			c.do(t, order{}) // has the views ready
			var hits atomic.Int32
			over, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				for {
					select {
					case <-over:
						return
					default:
						hits.Add(hunt(signal, c.cmd.Process.Pid))
					}
				}
			}()
			for i := 0; i < 400 && hits.Load() < 3; i++ {
				if a := c.do(t, order{}); a.Took > 2*Limit+time.Second {
					t.Errorf("pivot_root took %v", a.Took)
				}
			}
			close(over)
			<-ended
			if hits.Load() == 0 {
				t.Error("no process was hit")
			}
			// A child that was stopped while it asked the server passes for one whose
			// server hangs, which is not asked again for a while.
			deadline := time.Now().Add(2 * retryAfter)
			for a := c.do(t, order{}); a.Meminfo != "limited"; a = c.do(t, order{}) {
				if time.Now().After(deadline) {
					t.Fatalf("afterwards it saw %q", a.Meminfo)
				}
			}
		})
	}
}

// hunt sends a signal to the children of this process but one.
func hunt(signal unix.Signal, but int) (hits int32) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return 0
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid != but && unix.Kill(pid, signal) == nil {
				hits++
			}
		}
	}
	return hits
}
