// SPDX-License-Identifier: Apache-2.0

package fork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// work is what a child of the tests does: it reads a byte of a pipe, and ends with it
// as its exit status.
type work struct {
	pipe uintptr
	got  [1]byte
}

//go:nosplit
//go:norace
func (w *work) fork(c *Call) {
	if c.InChild() {
		syscall.RawSyscall(unix.SYS_READ, w.pipe, uintptr(unsafe.Pointer(&w.got)), 1)
		Exit(uintptr(w.got[0]))
	}
}

// child starts one that waits until something is written.
func child(t *testing.T) (p *Process, write *os.File) {
	t.Helper()
	r, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), write.Close()); err != nil {
			t.Error(err)
		}
	})
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	w := &work{pipe: r.Fd()}
	if p, err = Start(0, w.fork); err != nil {
		t.Fatal(err)
	}
	return p, write
}

// gone tells whether a process is neither there nor a zombie.
func gone(p *Process) bool {
	_, err := os.Stat(p.Path(""))
	return errors.Is(err, os.ErrNotExist)
}

// TestChild: signals are blocked in it and no longer here, nobody hears of its end,
// and it ends as it says.
func TestChild(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, unix.SIGCHLD)
	defer signal.Stop(heard)
	p, write := child(t)
	for path, want := range map[string]string{
		p.Path("status"):           "SigBlk:\tfffffffffffbfeff", // all but KILL and STOP
		"/proc/thread-self/status": "SigBlk:\t0000000000000000",
	} {
		status, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(status), want) {
			t.Errorf("%s has no %q: %s, %v", path, want, status, err)
		}
	}
	if _, err := p.Wait(time.Now().Add(10 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while it waits: %v", err)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a reaper sees %d, %v", pid, err)
	}
	if _, err := write.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(time.Time{}); err != nil || r.Status != 7 || r.Used <= 0 {
		t.Errorf("ended with %+v, %v", r, err)
	}
	if err := p.End(); err != nil { // as good as Close by now
		t.Error(err)
	}
	if !gone(p) {
		t.Error("it is still there")
	}
	select {
	case s := <-heard:
		t.Errorf("its end was heard: %v", s)
	default:
	}
}

// TestLeave: what is left behind ends, and is no zombie.
func TestLeave(t *testing.T) {
	p, _ := child(t)
	p.Leave()
	for deadline := time.Now().Add(10 * time.Second); !gone(p); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("a process stays")
		}
	}
}

// TestRefused: an error of clone3 is Start's, and signals are not blocked.
func TestRefused(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p, err := Start(unix.CLONE_SIGHAND, (&work{}).fork); p != nil || !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v, %v", p, err)
	}
	var blocked unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &blocked); err != nil || blocked != (unix.Sigset_t{}) {
		t.Errorf("blocked %v, %v", blocked, err)
	}
}

// TestHoldRefused: a child that gets no namespace by unshare(2) keeps those that it has.
func TestHoldRefused(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for name, c := range map[string]struct {
		userns *os.File
		flags  int
	}{
		"its own user namespace": {own, 0},
		"no such namespace":      {nil, unix.CLONE_PIDFD},
	} {
		h, err := Hold(0, c.userns, c.flags)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Made(); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := h.Wait(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the child has ended: %v", name, err)
		}
		if err := h.End(); err != nil {
			t.Error(err)
		}
	}
}

// TestHoldKilled: who waits for a child hears that it is gone.
func TestHoldKilled(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h, err := Hold(0, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Made(), h.Kill()); err != nil { // what it has told is read
		t.Fatal(err)
	}
	if err := h.Made(); err == nil {
		t.Error("a killed child has made something")
	}
	if err := h.End(); err != nil {
		t.Error(err)
	}
}

// TestBare: a child that only lives has no copy of the heap, and no child that is made
// at the same time lacks it.
func TestBare(t *testing.T) {
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			p, write := child(t)
			if _, err := write.Write([]byte{7}); err != nil {
				t.Error(err)
			}
			if r, err := p.Wait(time.Time{}); err != nil || r.Status != 7 {
				t.Errorf("ended with %+v, %v", r, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			cmd := exec.Command("true")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER} // is forked with a copy of memory, too
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			h, err := Hold(0, nil, unix.CLONE_NEWUTS)
			if err != nil {
				t.Error(err)
				return
			}
			if err := h.Made(); err != nil {
				t.Error(err)
			}
			// The arena is reserved as a whole.
			if its, ours := mapped(t, h.Path("status")), mapped(t, "/proc/self/status"); its > ours-arena/2 {
				t.Errorf("the child has %d bytes of our %d", its, ours)
			}
			if err := h.End(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// mapped is VmSize of a file like /proc/PID/status, in bytes.
func mapped(t *testing.T, status string) int {
	t.Helper()
	data, err := os.ReadFile(status)
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(data)) {
		var kB int
		if n, err := fmt.Sscanf(line, "VmSize: %d kB", &kB); n == 1 && err == nil {
			return kB << 10
		}
	}
	t.Errorf("no VmSize in %s", data)
	return 0
}
