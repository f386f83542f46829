// SPDX-License-Identifier: Apache-2.0

package timens

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

const insideEnv = "ISOLATE_TEST_TIMENS"

// TestMain is also the program that TestNamespaceOfAKilledProcess kills.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" {
		os.Exit(m.Run())
	}
	userns, err := userns.NewOwned(idmap.Contiguous(0x71300000, 65536))
	if err == nil {
		var n *Namespace
		if n, err = New(userns.File, Offsets{}); err == nil {
			fmt.Println(n.Path())
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func newUserns(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a user namespace with a range")
	}
	userns, err := userns.New(idmap.Contiguous(0x71300000, 65536))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := userns.Close(); err != nil {
			t.Error(err)
		}
	})
	return userns
}

func TestNew(t *testing.T) {
	t.Parallel()
	userns := newUserns(t)
	n, err := New(userns, fromNow(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, n, userns)
	path := n.Path()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its process is still there: %v", err)
	}
}

// TestOf: the child that makes a container's user namespace makes both.
func TestOf(t *testing.T) {
	t.Parallel()
	newUserns(t) // or skip
	owned, err := userns.NewOwned(idmap.Contiguous(0x71310000, 65536))
	if err != nil {
		t.Fatal(err)
	}
	n, err := Of(owned.Holder, fromNow(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, n, owned.File)
	path := n.Path()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("it has ended another's process: %v", err)
	}
	if err := owned.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its process is still there: %v", err)
	}
}

func fromNow(t *testing.T) Offsets {
	t.Helper()
	o, err := FromNow()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// check tells whether a namespace belongs to the user namespace, and begins now.
func check(t *testing.T, n *Namespace, userns *os.File) {
	t.Helper()
	f, err := os.Open(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	owner, err := ns.Userns(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ns.Of(owner)
	want, wantErr := ns.Of(userns)
	if err := errors.Join(err, wantErr); err != nil || got != want {
		t.Errorf("it belongs to another user namespace, %v", err)
	}
	if err := errors.Join(f.Close(), owner.Close()); err != nil {
		t.Error(err)
	}
	out, err := exec.CommandContext(t.Context(), "nsenter", "--time="+n.Path(), "cut", "-d.", "-f1", "/proc/uptime").CombinedOutput()
	var up int
	if _, scanErr := fmt.Sscan(string(out), &up); err != nil || scanErr != nil || up > 60 {
		t.Errorf("up %q, %v", out, err)
	}
}

// TestNewRefused: an error says why, and leaves no process.
func TestNewRefused(t *testing.T) {
	userns := newUserns(t)
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	past := Offsets{Boottime: Offset{Secs: -1 << 40}}
	for name, c := range map[string]struct {
		userns  *os.File
		offsets Offsets
		want    error
	}{
		"the caller's own user namespace": {own, Offsets{}, unix.EINVAL},
		"a clock before zero":             {userns, past, unix.ERANGE},
	} {
		if n, err := New(c.userns, c.offsets); n != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

// TestNamespaceOfAKilledProcess: the child enters a user namespace that is not its
// parent's, which takes its signal of death away.
func TestNamespaceOfAKilledProcess(t *testing.T) {
	newUserns(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	path, err := bufio.NewReader(out).ReadString('\n')
	path = strings.TrimSpace(path)
	if err != nil {
		t.Error(err)
	} else if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", path)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	userns, err := userns.New(idmap.Contiguous(0x71300000, 65536))
	if err != nil {
		b.Fatal(err)
	}
	defer userns.Close()
	for b.Loop() {
		n, err := New(userns, Offsets{})
		if err != nil {
			b.Fatal(err)
		}
		if err := n.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
