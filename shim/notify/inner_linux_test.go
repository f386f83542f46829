// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fusetest"
)

const asContainer = "ISOLATE_TEST_CONTAINER"

func TestMain(m *testing.M) {
	switch os.Getenv(asContainer) {
	case "outer":
		outer()
	case "inner":
		inner()
	default:
		os.Exit(m.Run())
	}
}

// order is what the container is told to do: to play the runtime of an inner
// container.
type order struct {
	Root   string // directory for the new root
	Nested bool   // in a user namespace of its own
	Proc   string // what is at <root>/proc: "proc", "none", "tmpfs", "link", "covered"
	Path   bool   // the root is named by path, with the working directory "/"
	Same   bool   // the root is the old one
	Fuse   string // the new root is FUSE: device to open
	Hang   bool   // ... whose server stops answering
	Times  int    // how often, for the rate; 1 otherwise
	Probe  bool   // instead: whether it can have a listener
	Ask    string // instead: to call sysinfo(2), see ask
}

// answer is what the container saw.
type answer struct {
	Error   string
	Meminfo string         // first line
	Took    time.Duration  // pivot_root alone
	Told    map[string]int // how often sysinfo(2) told what
}

// outer is the first process of the container: it loads the filter, passes the
// listener on, and does what it is told.
func outer() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""))
	if err == nil {
		var fd int
		if fd, err = loadFilter(); err == nil {
			err = unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0)
			unix.Close(fd)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "container:", err)
		os.Exit(1)
	}
	unix.Close(3)
	for {
		var o order
		if in.Decode(&o) != nil {
			return
		}
		var a answer
		var took time.Duration
		times := max(o.Times, 1)
		for i := 0; i < times && a.Error == ""; i++ {
			if o.Ask == "hang" {
				a = askBeside(o)
				continue
			}
			a = run(o)
			took += a.Took
		}
		a.Took = took / time.Duration(times)
		if err := out.Encode(a); err != nil {
			return
		}
	}
}

// run plays a runtime in a process of its own.
func run(o order) answer {
	cmd := exec.Command(os.Args[0])
	data, err := json.Marshal(o)
	if err != nil {
		return answer{Error: err.Error()}
	}
	cmd.Env = []string{asContainer + "=inner", "ORDER=" + string(data)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if o.Nested {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1000}}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	text, err := cmd.Output()
	var a answer
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func inner() {
	runtime.LockOSThread()
	var o order
	var a answer
	err := json.Unmarshal([]byte(os.Getenv("ORDER")), &o)
	switch {
	case err != nil:
	case o.Probe:
		var errno syscall.Errno
		errno, err = refused()
		a.Meminfo = errno.Error()
	case o.Ask != "":
		a, err = ask(o)
	default:
		a, err = pivot(o)
	}
	if err != nil {
		a.Error = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(a) //nolint:errcheck // the parent notices
	os.Exit(0)
}

func pivot(o order) (a answer, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return a, fmt.Errorf("private: %w", err)
	}
	var server *fusetest.Server
	if o.Fuse != "" {
		if server, err = fusetest.Mount(o.Fuse, o.Root, "fuse"); err != nil {
			return a, err
		}
	} else if err := unix.Mount("root", o.Root, "tmpfs", 0, ""); err != nil {
		return a, fmt.Errorf("mount root: %w", err)
	}
	if err := prepare(o); err != nil {
		return a, err
	}
	target, old := ".", "."
	switch {
	case o.Same:
		target, old = "/", "/"
	case o.Path:
		target, old = o.Root, filepath.Join(o.Root, "old")
		err = errors.Join(os.Mkdir(old, 0o755), os.Chdir("/"))
	default:
		err = os.Chdir(o.Root)
	}
	if err != nil {
		return a, err
	}
	if o.Hang {
		server.Hang.Store(true)
	}
	start := time.Now()
	err = unix.PivotRoot(target, old)
	a.Took = time.Since(start)
	if o.Same {
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) { // as without a notifier
			err = nil
		}
		return a, err
	}
	if err != nil {
		return a, fmt.Errorf("pivot_root: %w", err)
	}
	if o.Hang {
		return a, nil
	}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		a.Meminfo = "none"
		return a, nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	a.Meminfo = lines.Text()
	return a, lines.Err()
}

func prepare(o order) error {
	proc := o.Root + "/proc"
	if o.Proc == "none" {
		return nil
	}
	if o.Proc == "link" {
		proc = o.Root + "/real"
		if err := os.Symlink("real", o.Root+"/proc"); err != nil {
			return err
		}
	}
	if err := os.Mkdir(proc, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	switch o.Proc {
	case "tmpfs":
		if err := unix.Mount("x", proc, "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.WriteFile(proc+"/meminfo", []byte("mine\n"), 0o644)
	case "covered":
		if err := os.WriteFile(o.Root+"/mine", []byte("mine\n"), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", proc, "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if o.Proc == "covered" {
		return unix.Mount(o.Root+"/mine", proc+"/meminfo", "", unix.MS_BIND, "")
	}
	return nil
}

// loadFilter reports pivot_root, mount and sysinfo of all threads to the descriptor it returns.
func loadFilter() (int, error) {
	const tsyncESRCH = 1 << 4 // SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PIVOT_ROOT, Jt: 2},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MOUNT, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SYSINFO, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_TSYNC|tsyncESRCH, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}
