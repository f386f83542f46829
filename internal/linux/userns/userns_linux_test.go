// SPDX-License-Identifier: Apache-2.0

package userns_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	nsfs "github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Main(m, programs)) }

// programs are what tests run in processes of their own, by name.
var programs = map[string]func(args []string) error{
	"reaper":  reaper,
	"forever": forever,
}

// holderRange is a mapping only the tests for left-over processes use.
var holderRange = idmap.Contiguous(0x71230000, 65536)

func TestNew(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	m := idmap.Mapping{
		UIDs: []idmap.Range{{Host: 300000, Size: 10}, {Container: 10, Host: 400000, Size: 20}},
		GIDs: []idmap.Range{{Host: 500000, Size: 65536}},
	}
	ns, err := userns.New(m)
	testmounts.Check(t, err)
	defer testmounts.Close(t, ns)
	cmd := exec.CommandContext(t.Context(), "nsenter", "--user=/proc/self/fd/3",
		"cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")
	cmd.ExtraFiles = []*os.File{ns}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(out)), " ")
	if want := "0 300000 10 10 400000 20 0 500000 65536 allow"; got != want {
		t.Errorf("namespace has %q, want %q", got, want)
	}
	if flags, err := unix.FcntlInt(ns.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: not closed on exec", flags, err)
	}
	if _, err := userns.New(idmap.Mapping{}); err == nil {
		t.Error("empty mapping accepted")
	}
}

// TestOwnedIsItsRoots: what a container uses counts for its root, and
// the creator's limit of processes does not become the container's.
func TestOwnedIsItsRoots(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	const root = 0x71280000
	ns, err := userns.NewOwned(idmap.Contiguous(root, 65536))
	if err != nil {
		t.Fatal(err)
	}
	if owner, err := nsfs.Owner(ns.File); err != nil || owner != root {
		t.Errorf("it belongs to user %d, %v", owner, err)
	}
	cmd := exec.CommandContext(t.Context(), "nsenter", "--user="+ns.Path(),
		"cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(out)), " ")
	if want := "0 1898446848 65536 0 1898446848 65536 allow"; got != want {
		t.Errorf("namespace has %q, want %q", got, want)
	}
	path := ns.Path()
	if err := ns.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its process is still there: %v", err)
	}
	// The thread ends soon after its work.
	for deadline := time.Now().Add(10 * time.Second); actsAs(t, "1898446848"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a thread acts as the container's root")
		}
	}
	none := idmap.Mapping{UIDs: []idmap.Range{{Container: 1, Host: 300000, Size: 10}}, GIDs: []idmap.Range{{Container: 1, Host: 300000, Size: 10}}}
	if ns, err := userns.NewOwned(none); err == nil {
		t.Error("a mapping without root accepted", ns.Close())
	}
}

// actsAs tells whether a thread of this process has a user id.
func actsAs(t *testing.T, uid string) bool {
	t.Helper()
	statuses, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(statuses) == 0 {
		t.Fatal(statuses, err)
	}
	return slices.ContainsFunc(statuses, func(status string) bool {
		data, err := os.ReadFile(status)
		return err == nil && strings.Contains(string(data), uid)
	})
}

// TestNewBesideReaper: a reaper in the same process, as every shim has,
// neither takes the child away nor hears of it, and none is left.
func TestNewBesideReaper(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RunProgram(t, testmounts.Program(t, idmap.Mapping{}, "reaper"))
}

func reaper([]string) error {
	seen := make(chan string, 1)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, unix.SIGCHLD)
	go func() {
		for {
			var ws unix.WaitStatus
			if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err == nil && pid > 0 {
				select {
				case seen <- fmt.Sprintf("reaper got child %d with %#x", pid, ws):
				default:
				}
			}
			time.Sleep(50 * time.Microsecond)
		}
	}()
	for range 200 {
		ns, err := userns.New(holderRange)
		if err != nil {
			return err
		}
		if err := ns.Close(); err != nil {
			return err
		}
	}
	select {
	case what := <-seen:
		return errors.New(what)
	case <-sig:
		return errors.New("SIGCHLD arrived")
	default:
	}
	return wantNoChildren()
}

func wantNoChildren() error {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err == nil && len(children) > 0 {
			return fmt.Errorf("children left: %s", children)
		}
	}
	return nil
}

// TestNewKilled: when the process is killed in the middle, the child goes
// with it.
func TestNewKilled(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	for range 20 {
		cmd := testmounts.Program(t, idmap.Mapping{}, "forever")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		testmounts.Stop(cmd)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := processesWith(t, fmt.Sprint(holderRange.UIDs[0].Host+1))
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func forever([]string) error {
	m := idmap.Contiguous(holderRange.UIDs[0].Host+1, 1)
	for i := 0; ; i++ {
		ns, err := userns.New(m)
		if err != nil {
			return err
		}
		if err := ns.Close(); err != nil {
			return err
		}
		if i == 3 {
			fmt.Println("running")
		}
	}
}

// processesWith returns the processes whose uid map contains the word.
func processesWith(t *testing.T, word string) []string {
	t.Helper()
	maps, err := filepath.Glob("/proc/[0-9]*/uid_map")
	if err != nil || len(maps) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	var found []string
	for _, path := range maps {
		// Nobody reaps orphans here: zombies of the killed parents are no leak.
		status, err := os.ReadFile(filepath.Dir(path) + "/status")
		if err != nil || strings.Contains(string(status), "State:\tZ") {
			continue
		}
		content, err := os.ReadFile(path)
		if err == nil && strings.Contains(" "+strings.Join(strings.Fields(string(content)), " ")+" ", " "+word+" ") {
			found = append(found, path)
		}
	}
	return found
}

func TestExplainClone(t *testing.T) {
	t.Parallel()
	for errno, want := range map[unix.Errno]string{
		unix.ENOSPC: "max_user_namespaces",
		unix.EUSERS: "max_user_namespaces",
		unix.EINVAL: "CONFIG_USER_NS",
		unix.EPERM:  "CAP_SYS_ADMIN",
		unix.ENOMEM: "cannot allocate",
	} {
		err := userns.Explain(os.NewSyscallError("clone3", errno))
		if !strings.Contains(err.Error(), want) || !errors.Is(err, errno) {
			t.Errorf("%v gave %q", errno, err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	testmounts.RequireRoot(b)
	m := idmap.Contiguous(300000, 65536)
	for b.Loop() {
		ns, err := userns.New(m)
		if err != nil {
			b.Fatal(err)
		}
		testmounts.Close(b, ns)
	}
}

func BenchmarkNewOwned(b *testing.B) {
	testmounts.RequireRoot(b)
	m := idmap.Contiguous(0x71290000, 65536)
	for b.Loop() {
		ns, err := userns.NewOwned(m)
		if err != nil {
			b.Fatal(err)
		}
		if err := ns.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
