// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// states are what a first process does to outlive its end. Each returns when it has
// succeeded.
var states = map[string]func(){
	"plain":         func() {},
	"fuse-own":      func() { waitInFuse("/tmp/own") },
	"fuse-many":     fuseMany,
	"fuse-hidden":   fuseHidden,
	"fuse-next":     fuseNext,
	"fuse-child":    func() { second("fuse-own") },
	"fuse-server":   fuseServer,
	"fuse-overlay":  fuseOverlay,
	"fuse-orphan":   fuseOrphan,
	"deep-mounts":   deepMounts,
	"frozen":        frozen,
	"throttled":     throttled,
	"wide-cgroups":  func() { wideCgroups(500, groupsOf()...) },
	"all-cgroups":   func() { wideCgroups(42_000, groupsOf()[0]) },
	"many-children": manyChildren,
	"stopped":       stopped,
	"traced":        func() { second("tracer") },
	"keys":          manyKeys,
	"timers":        manyTimers,
	"queued":        queued,

	// What second starts.
	"freezer": freezer,
	"tracer":  tracer,
	"stall":   func() { go stall(3, nil) },
	"nothing": func() {},
}

// end makes a state and says so; then it waits for its end.
func end(name string) {
	state, ok := states[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no state %q\n", name)
		os.Exit(1)
	}
	state()
	say("ready/"+name, allowed, "")
	wait()
}

// wait waits for the end. A select without a case would be a deadlock for Go.
func wait() {
	for {
		time.Sleep(time.Hour)
	}
}

// second starts another process, and returns when that is in its state.
func second(name string, files ...*os.File) {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "end", name)
	output, err := command.StdoutPipe()
	must(err)
	command.Stderr, command.ExtraFiles = os.Stderr, files
	must(command.Start())
	line := make([]byte, 4096)
	n, err := output.Read(line)
	must(err)
	if !strings.Contains(string(line[:n]), "ready/"+name) {
		panic(string(line[:n]))
	}
}

// ask has a thread wait for a server.
func ask(dir string, taken <-chan struct{}) {
	go func() {
		var st unix.Stat_t
		_ = unix.Stat(dir+"/file", &st)
	}()
	if taken != nil {
		<-taken
	}
}

func waitInFuse(dir string) {
	taken := make(chan struct{}, 1)
	go stall(mountFuse(dir), taken)
	ask(dir, taken)
}

// fuseMany has one thread wait for the server, and others for that one.
func fuseMany() {
	waitInFuse("/tmp/many")
	for range 40 {
		ask("/tmp/many", nil)
	}
}

// fuseHidden waits in a mount that no process shows any more.
func fuseHidden() {
	const dir = "/tmp/hidden"
	taken := make(chan struct{}, 1)
	go stall(mountFuse(dir), taken)
	root, err := unix.Open(dir, unix.O_PATH, 0)
	must(err)
	must(unix.Unmount(dir, unix.MNT_DETACH))
	ask(fmt.Sprintf("/proc/self/fd/%d", root), taken)
}

// fuseNext has a process wait in each of several servers, of which each is served by
// the process before.
func fuseNext() {
	for i := range 5 {
		dir := fmt.Sprintf("/tmp/next%d", i)
		device := mountFuse(dir)
		second("stall", os.NewFile(uintptr(device), "fuse"))
		ask(dir, nil)
	}
}

// fuseServer waits for a server that is another process.
func fuseServer() {
	const dir = "/tmp/server"
	device := mountFuse(dir)
	second("stall", os.NewFile(uintptr(device), "fuse"))
	must(unix.Close(device))
	ask(dir, nil)
}

// fuseOverlay waits in an overlay whose layer is FUSE: overlayfs asks as whoever
// mounted it.
func fuseOverlay() {
	const dir, merged = "/tmp/layer", "/tmp/merged"
	taken := make(chan struct{}, 1)
	device := mountFuse(dir)
	go stall(device, taken)
	must(os.MkdirAll(merged, 0o755))
	must(os.MkdirAll("/tmp/empty", 0o755))
	go func() {
		// The mount itself asks the server.
		_ = unix.Mount("escape", merged, "overlay", 0, "lowerdir="+dir+":/tmp/empty,userxattr")
	}()
	<-taken
	ask(dir, taken)
}

// fuseOrphan leaves a waiting process to the first one of the pid namespace, in a
// user namespace and mount namespace of its own.
func fuseOrphan() {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "end", "fuse-own")
	output, err := command.StdoutPipe()
	must(err)
	ids := []syscall.SysProcIDMap{{Size: 65536}}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID, UidMappings: ids, GidMappings: ids, Setsid: true,
		GidMappingsEnableSetgroups: true,
	}
	must(command.Start())
	_, err = output.Read(make([]byte, 4096))
	must(err)
}

// deepMounts puts 65,536 mounts on one place, twice as many each time, and then waits for
// its own server, whose mount is the last.
func deepMounts() {
	const dir = "/tmp/deep"
	must(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")) // or they multiply by themselves
	must(os.MkdirAll(dir, 0o755))
	must(unix.Mount("escape", dir, "tmpfs", 0, ""))
	lowest, err := unix.Open(dir, unix.O_PATH, 0)
	must(err)
	for range 16 {
		all, err := unix.OpenTree(lowest, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE|unix.OPEN_TREE_CLONE)
		must(err)
		must(unix.MoveMount(all, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH))
		must(unix.Close(all))
	}
	waitInFuse("/tmp/own")
}

// groupsOf returns the directories of the container's own cgroups.
func groupsOf() []string {
	var dirs []string
	for _, dir := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// frozen is frozen by a child, which says so.
func frozen() {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "end", "freezer")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	must(command.Start())
	wait()
}

// freezer freezes the first process in a group below the container's.
func freezer() {
	dir, file, value := "/sys/fs/cgroup/freezer/frozen", "/freezer.state", "FROZEN"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil { // version 2
		dir, file, value = "/sys/fs/cgroup/frozen", "/cgroup.freeze", "1"
	}
	must(os.Mkdir(dir, 0o755))
	must(os.WriteFile(dir+"/cgroup.procs", []byte("1"), 0))
	must(os.WriteFile(dir+file, []byte(value), 0))
	say("ready/frozen", allowed, "")
}

// wideCgroups makes groups side by side, until it may not.
func wideCgroups(n int, tops ...string) {
	for _, top := range tops {
		for i := range n {
			if os.Mkdir(fmt.Sprintf("%s/w%d", top, i), 0o755) != nil {
				break
			}
		}
	}
}

func manyChildren() {
	for range 300 {
		command := exec.CommandContext(context.Background(), "/proc/self/exe", "end", "nothing")
		if command.Start() != nil {
			break
		}
	}
}

func stopped() {
	for range 3 {
		second("nothing")
	}
	must(unix.Kill(-1, unix.SIGSTOP))
}

// tracer traces the threads of the first process, which then stop at their ends.
func tracer() {
	const seize = 0x4206
	threads, err := os.ReadDir("/proc/1/task")
	must(err)
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		must(err)
		must(call(unix.SYS_PTRACE, seize, uintptr(tid), 0, unix.PTRACE_O_TRACEEXIT))
	}
}

// manyKeys fills the quota of keys.
func manyKeys() {
	for i := range 1_000_000 {
		if _, err := unix.AddKey("user", fmt.Sprintf("end%d", i), []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING); err != nil {
			return
		}
	}
}

// manyTimers has as many POSIX timers as there may be, up to a hundred thousand.
func manyTimers() {
	for range 100_000 {
		var id int32
		if call(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&id))) != nil {
			return
		}
	}
}

// queued leaves the namespaces in the queue of a socket that is in its own queue.
func queued() {
	for _, kind := range []string{"mnt", "net", "user", "pid", "cgroup"} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(err)
		ns, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY, 0)
		must(err)
		root, err := unix.Open("/", unix.O_PATH, 0)
		must(err)
		must(unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(ns, root, pair[0], pair[1]), nil, 0))
		for _, fd := range []int{pair[0], pair[1], ns, root} {
			must(unix.Close(fd))
		}
	}
}

// throttled reads from a disk at a byte or two a second, by a limit in a group of its own.
func throttled() {
	const file = "/throttled"
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	must(err)
	_, err = f.Write(make([]byte, 1<<20))
	must(err)
	must(f.Sync())
	dir, limit, format := "/sys/fs/cgroup/blkio/throttled", "blkio.throttle.read_bps_device", "%s 1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil { // version 2
		dir, limit, format = "/sys/fs/cgroup/throttled", "io.max", "%s rbps=2" // the least
	}
	must(os.Mkdir(dir, 0o755))
	disks, err := filepath.Glob("/sys/block/*/dev")
	must(err)
	for _, disk := range disks {
		number, err := os.ReadFile(disk)
		must(err)
		_ = os.WriteFile(filepath.Join(dir, limit), fmt.Appendf(nil, format, strings.TrimSpace(string(number))), 0) // of one that can be read
	}
	must(os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0))
	reader := make(chan int)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
		must(err)
		memory, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		must(err)
		reader <- unix.Gettid()
		_, err = unix.Read(fd, memory)
		panic(fmt.Sprintf("the read is not throttled: %v", err))
	}()
	for status := fmt.Sprintf("/proc/self/task/%d/status", <-reader); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(status)
		must(err)
		if strings.Contains(string(text), "State:\tD") {
			return
		}
	}
}
