// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestProcess(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t)
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if alive, err := p.ID().Alive(); !alive || err != nil {
		t.Error(alive, err)
	}
	later := ID{PID: p.PID(), Start: p.ID().Start + 1}
	if alive, err := later.Alive(); alive || err != nil {
		t.Error("another process with this pid is taken for it", err)
	}
	ns, err := p.Namespace("user")
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if ended, err := p.Ended(10 * time.Millisecond); ended || err != nil {
		t.Error(ended, err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Nobody has collected it: a zombie is not alive.
	if ended, err := p.Ended(10 * time.Second); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if alive, err := p.ID().Alive(); alive || err != nil {
		t.Error("a zombie is alive", err)
	}
	if _, err := p.Read("stat"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := p.Namespace("user"); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := p.Signal(0); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	if _, err := Open(p.PID()); !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
}

// TestNoProcessOfAThread: a number that only a thread has is no process. That of a
// process is such a one for a moment when the process ends.
func TestNoProcessOfAThread(t *testing.T) {
	t.Parallel()
	tid := make(chan int)
	for range 2 { // one of them may be the first thread
		go func() {
			runtime.LockOSThread() // it ends with this function
			tid <- unix.Gettid()
			tid <- 0
		}()
	}
	for range 4 {
		id := <-tid
		if id == 0 || id == os.Getpid() {
			continue
		}
		if p, err := Open(id); !errors.Is(err, ErrEnded) {
			t.Errorf("thread %d: %v, %v", id, p, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	tail := " S 7 3 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0"
	for _, name := range []string{"(sh)", "(a) R 1)", "(\n)"} {
		s, err := ParseStat([]byte("12 " + name + tail))
		if err != nil || s != (Stat{State: 'S', Parent: 7, Start: 4242}) {
			t.Errorf("%q: %+v, %v", name, s, err)
		}
	}
	if s, err := ParseStat([]byte("12 (sh)" + strings.Replace(tail, "4194560", "4194564", 1))); err != nil || !s.Exiting {
		t.Errorf("at its end: %+v, %v", s, err)
	}
	for _, bad := range []string{"", "12 (sh) S 1", "12 sh S"} {
		if s, err := ParseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := ParseStat(content)
		if err != nil && s != (Stat{}) {
			t.Errorf("%+v beside %v", s, err)
		}
	})
}
