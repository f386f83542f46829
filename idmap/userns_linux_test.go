// SPDX-License-Identifier: Apache-2.0

package idmap

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

	namespace "github.com/isolate-shim/isolate/internal/linux/ns"
)

// holderRange is a mapping only the tests for left-over processes use.
var holderRange = Contiguous(0x71230000, 65536)

func TestNewUserns(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	m := Mapping{
		UIDs: []Range{{0, 300000, 10}, {10, 400000, 20}},
		GIDs: []Range{{0, 500000, 65536}},
	}
	ns := userns(t, m)
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
	if _, err := NewUserns(Mapping{}); err == nil {
		t.Error("empty mapping accepted")
	}
}

// TestContainerUsernsIsItsRoots: what a container uses counts for its root, and
// the creator's limit of processes does not become the container's.
func TestContainerUsernsIsItsRoots(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	const root = 0x71280000
	ns, err := NewContainerUserns(Contiguous(root, 65536))
	if err != nil {
		t.Fatal(err)
	}
	if owner, err := namespace.Owner(ns.File); err != nil || owner != root {
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
	none := Mapping{UIDs: []Range{{1, 300000, 10}}, GIDs: []Range{{1, 300000, 10}}}
	if ns, err := NewContainerUserns(none); err == nil {
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

// TestNewUsernsBesideReaper: a reaper in the same process, as every shim has,
// neither takes the child away nor hears of it, and none is left.
func TestNewUsernsBesideReaper(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	run(t, helper(t, Mapping{}, "reaper"))
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
		ns, err := NewUserns(holderRange)
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

// TestNewUsernsKilled: when the process is killed in the middle, the child goes
// with it.
func TestNewUsernsKilled(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	for range 20 {
		cmd := helper(t, Mapping{}, "forever")
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
		stop(cmd)
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
	m := Contiguous(holderRange.UIDs[0].Host+1, 1)
	for i := 0; ; i++ {
		ns, err := NewUserns(m)
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
		err := explainClone(os.NewSyscallError("clone3", errno))
		if !strings.Contains(err.Error(), want) || !errors.Is(err, errno) {
			t.Errorf("%v gave %q", errno, err)
		}
	}
}

// sit says that it runs and waits to be killed.
func sit([]string) error {
	fmt.Println("running")
	for {
		time.Sleep(time.Hour)
	}
}

// stop kills a child and waits for it.
func stop(cmd *exec.Cmd) {
	cmd.Process.Kill() //nolint:errcheck // it may have ended
	cmd.Wait()         //nolint:errcheck // it was killed
}

// start starts a helper, waits until it runs, and returns its pid.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(cmd) })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%v: %s", err, cmd.Stderr)
	}
	return cmd.Process.Pid
}

func BenchmarkNewUserns(b *testing.B) {
	requireRoot(b)
	m := Contiguous(300000, 65536)
	for b.Loop() {
		ns, err := NewUserns(m)
		if err != nil {
			b.Fatal(err)
		}
		shut(b, ns)
	}
}

func BenchmarkNewContainerUserns(b *testing.B) {
	requireRoot(b)
	m := Contiguous(0x71290000, 65536)
	for b.Loop() {
		ns, err := NewContainerUserns(m)
		if err != nil {
			b.Fatal(err)
		}
		if err := ns.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
