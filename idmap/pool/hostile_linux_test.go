// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// hostileEnv makes the test binary one of the programs below; see runHostile.
const hostileEnv = "ISOLATE_TEST_POOL_HOSTILE"

// hostiles are programs that try to go on with ids of a range unseen. They run as
// root of a user namespace with that range, in the pid namespace of the host, like a
// daemon in a shared one. Each prints the processes to end, and "ready".
var hostiles = map[string]func() error{
	"sleeper":       func() error { return say(os.Getpid()) },
	"first thread":  endFirstThread,
	"daemon":        func() error { return spawn(&unix.SysProcAttr{Setsid: true}) },
	"inner pids":    func() error { return spawn(&unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}) },
	"inner userns":  func() error { return spawn(&unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}) },
	"only a number": func() error { return spawn(&unix.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4712}}) },
	"traced":        traced,
	"forker":        forker,
}

// outsiders are programs of the host that have ids of the range whose namespace is
// of the process init.
var outsiders = map[string]func(init int, first idmap.HostID) *exec.Cmd{
	"by setns": func(init int, _ idmap.HostID) *exec.Cmd {
		// It keeps the ids of the host, and could take those of the range.
		return exec.Command("nsenter", "--preserve-credentials", fmt.Sprintf("--user=/proc/%d/ns/user", init), "sh", "-c", "echo $$; echo ready; exec sleep 1000")
	},
	"by a group": func(_ int, first idmap.HostID) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "echo $$; echo ready; exec sleep 1000")
		cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{uint32(first) + 5}}}
		return cmd
	},
}

func say(pids ...int) error {
	for _, pid := range pids {
		fmt.Println(pid)
	}
	fmt.Println("ready")
	return wait()
}

func wait() error {
	for {
		_ = unix.Pause()
	}
}

// spawn leaves a child behind and ends.
func spawn(attr *unix.SysProcAttr) error {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	fmt.Println("ready")
	return nil
}

// endFirstThread makes the process look like a zombie.
func endFirstThread() error {
	go func() {
		stat := ""
		for !strings.Contains(stat, ") Z ") {
			content, err := os.ReadFile("/proc/self/stat")
			if err != nil {
				panic(err)
			}
			stat = string(content)
		}
		_ = say(os.Getpid())
	}()
	_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // main is locked to the first thread
	return errno
}

// traced leaves a child that its tracer has stopped, and the tracer, in which every
// thread is but the one that waits.
func traced() error {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return say(os.Getpid(), cmd.Process.Pid)
}

// forker is gone a moment later, and so is its child. It goes on while there is a
// file "go".
func forker() error {
	fmt.Println("ready")
	file := append([]byte("go"), 0)
	var pin runtime.Pinner
	pin.Pin(&file[0])
	fork(uintptr(unsafe.Pointer(&file[0])))
	return nil
}

//go:nosplit
//go:norace
func fork(file uintptr) {
	dir := unix.AT_FDCWD
	for {
		_, _, gone := syscall.RawSyscall6(unix.SYS_FACCESSAT, uintptr(dir), file, 0, 0, 0, 0)
		pid := uintptr(0)
		if gone == 0 {
			var errno syscall.Errno
			if pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, 0, 0, 0, 0, 0, 0); errno != 0 {
				continue
			}
		}
		if pid != 0 || gone != 0 {
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) // does not return
			}
		}
	}
}

// runHostile is the program that args names: "reap FIRST NAME" starts it with ids
// from FIRST on, collects the orphans that it leaves, and has no such id itself.
func runHostile(args string) error {
	name, ok := strings.CutPrefix(args, "reap ")
	if !ok {
		return hostiles[args]()
	}
	digits, name, _ := strings.Cut(name, " ")
	first, err := strconv.Atoi(digits)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	signal.Ignore(unix.SIGCHLD)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hostileEnv+"="+name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ids := []syscall.SysProcIDMap{{HostID: first, Size: slotSize}}
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	os.Stdout.Close()
	return wait()
}

// ready starts a program and reads the pids that it prints until it is ready.
func ready(t *testing.T, cmd *exec.Cmd) []int {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	var pids []int
	for s := bufio.NewScanner(out); s.Scan() && s.Text() != "ready"; {
		pid, err := strconv.Atoi(s.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// hostileRange is a pool of one range, whose holder was killed.
type hostileRange struct {
	*Pool
	first idmap.HostID
}

func newHostileRange(t *testing.T) hostileRange {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to map ids")
	}
	// Any, since processes of other runs of this test count.
	span := idmap.Span{First: idmap.HostID(0x5000+rand.N(0x1000)) * slotSize, Size: slotSize}
	p := open(t, t.TempDir(), span)
	// A cgroup that is empty, since they have left it.
	cgroup := t.TempDir()
	if err := os.WriteFile(cgroup+"/cgroup.procs", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := acquire(t, p, Owner{ID: "hostile", Cgroups: []string{cgroup}}, slotSize).close(); err != nil {
		t.Fatal(err)
	}
	return hostileRange{Pool: p, first: span.First}
}

// start runs a program of hostiles, in a directory of its own, and returns what ends
// all of it.
func (r hostileRange) start(t *testing.T, name string) (pids []int, end func()) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hostileEnv+"="+fmt.Sprintf("reap %d %s", r.first, name))
	cmd.Dir = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pids = ready(t, cmd)
	stop := func() { _ = os.Remove(filepath.Join(dir, "go")) }
	t.Cleanup(stop) // before who collects the orphans is killed
	return pids, func() {
		stop()
		for _, pid := range pids {
			// The tracer's end may be its child's.
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				t.Error(err)
			}
		}
	}
}

// kept fails if the range can be had.
func (r hostileRange) kept(t *testing.T) {
	t.Helper()
	if l, err := r.AcquirePreferred(t.Context(), Owner{ID: "next"}, slotSize, 0); err == nil {
		t.Fatalf("given to %v while a process has ids of it", l.Mapping())
	} else if !errors.Is(err, errExhausted) {
		t.Logf("not given: %v", err)
	}
	entries, err := r.List(t.Context())
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].InUse, "process ") {
		t.Errorf("list does not say whose the ids are: %+v, %v", entries, err)
	}
}

// freed fails if the range cannot be had soon.
func (r hostileRange) freed(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l, err := r.AcquirePreferred(t.Context(), Owner{ID: "next"}, slotSize, 0)
		if err == nil {
			t.Cleanup(func() { runtime.KeepAlive(l) }) // see acquire
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestWhoHasIDsKeepsTheRange: whatever a program does to be overlooked, its range is
// not given away while it lives, and is soon after.
func TestWhoHasIDsKeepsTheRange(t *testing.T) {
	t.Parallel()
	for name := range hostiles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newHostileRange(t)
			_, end := r.start(t, name)
			rounds := 3
			if name == "forker" {
				rounds = 200
			}
			// On a busy machine a look beside the forker takes seconds.
			for started := time.Now(); rounds > 0 && time.Since(started) < time.Minute; rounds-- {
				r.kept(t)
			}
			end()
			r.freed(t)
		})
	}
	for name, start := range outsiders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newHostileRange(t)
			pids, end := r.start(t, "sleeper")
			cmd := start(pids[0], r.first)
			ready(t, cmd)
			end()
			for range 3 {
				r.kept(t)
			}
			kill(cmd)
			r.freed(t)
		})
	}
}

// TestAdoptsNothingThatOutlivedItsContainer: ids of the pool are no caller's while a
// process has them.
func TestAdoptsNothingThatOutlivedItsContainer(t *testing.T) {
	t.Parallel()
	r := newHostileRange(t)
	pids, end := r.start(t, "sleeper")
	adopt := func() error {
		_, err := r.Adopt(t.Context(), idmap.Contiguous(r.first+10, 10), Owner{ID: "b"}, "", false)
		return err
	}
	if err := adopt(); !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pids[0])) {
		t.Error(err)
	}
	end()
	r.freed(t)
	if err := adopt(); !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), `container "next"`) {
		t.Error(err)
	}
}

// TestLostFiles: the directory is removed while containers run. Their ranges are not
// given away, and another container of the same pod can still be made.
func TestLostFiles(t *testing.T) {
	t.Parallel()
	r := newHostileRange(t)
	_, end := r.start(t, "sleeper")
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.Pool = open(t, r.dir, r.spans...)
	r.kept(t)
	app, err := r.Share(t.Context(), idmap.Contiguous(r.first, slotSize), Owner{ID: "app"})
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := r.AcquirePreferred(t.Context(), Owner{ID: "next"}, slotSize, 0); !errors.Is(err, errExhausted) {
		t.Errorf("%v, while a container of the pod has it", err)
	}
	if err := app.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.freed(t)
}

// TestLostFilesOfAContainerInTheMaking: nobody has its ids yet, so it must not begin.
func TestLostFilesOfAContainerInTheMaking(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ids")
	p := open(t, dir, idmap.Span{First: 1 << 24, Size: slotSize})
	l := acquire(t, p, Owner{}, slotSize)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Bound(os.Getpid()); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("bound: %v", err)
	}
}
