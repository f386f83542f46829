// SPDX-License-Identifier: Apache-2.0

// Command capacity takes as much of a resource of the kernel as it gets, in a
// container to use it up, and elsewhere to see what is left.
//
//	capacity take RESOURCE N   takes at most N, prints how many it got, the bytes that its
//	                           container is charged for them, and what stopped it
//	capacity hold RESOURCE N   the same, and then keeps them until it is killed
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resources take one more each time, for the index i.
var resources = map[string]func(i int) error{
	"inotify instances": func(int) error { return ignore(unix.InotifyInit1(unix.IN_CLOEXEC)) },
	"inotify watches":   watch,
	"fanotify groups": func(int) error {
		return ignore(unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY))
	},
	"pending signals": func(int) error {
		var id int32
		return call(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&id)))
	},
	"message queues": queue,
	"locked memory":  lock,
	"pipes":          pipe,
	"keys":           key,
	"terminals": func(int) error {
		return ignore(unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0))
	},
	"asynchronous I/O": func(int) error {
		var id uint64
		return call(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&id)))
	},
	"namespaces":                        namespace,
	"open files":                        func(int) error { return ignore(unix.Eventfd(0, unix.EFD_CLOEXEC)) },
	"files in memory (tmpfs, /dev/shm)": node,
	"mounts":                            mount,
	"epoll watches":                     epoll,
	"io_uring":                          ring,
	"System V semaphores":               semaphores,
	"netlink sockets":                   func(int) error { return socket(unix.AF_NETLINK, unix.SOCK_RAW) },
	"network devices":                   device,
	"neighbour entries (ARP, NDP)":      neighbour,
	"tracked connections":               connection,
	"compiled packet filters":           filter,
	"TCP buffers":                       unread,
	"processes": func(int) error {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		for pid == 0 {
			_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
		children = append(children, int(pid))
		return nil
	},
}

var children []int

func main() {
	if len(os.Args) != 4 || resources[os.Args[2]] == nil {
		fmt.Fprintln(os.Stderr, "usage: capacity take|hold RESOURCE N")
		os.Exit(2)
	}
	most, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	runtime.LockOSThread() // whose user changes
	before, got := charged(), 0
	for got < most && err == nil {
		if err = resources[os.Args[2]](got); err == nil {
			got++
		}
	}
	fmt.Println(got, charged()-before, err)
	if os.Args[1] == "hold" {
		_ = os.Stdout.Close()
		for {
			_ = unix.Pause()
		}
	}
	for _, pid := range children {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if os.Args[2] == "inotify watches" {
		for i := range min(got, perInstance) {
			_ = os.Remove(watched(i))
		}
	}
}

// charged is what the memory cgroup is charged that is the root of what a container
// sees; zero outside.
func charged() int {
	for _, file := range []string{"/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"} {
		if text, err := os.ReadFile(file); err == nil {
			n, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				panic(err)
			}
			return n
		}
	}
	return 0
}

func ignore(_ int, err error) error { return err }

func call(number uintptr, a ...uintptr) error {
	var args [6]uintptr
	copy(args[:], a)
	if _, _, errno := unix.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]); errno != 0 {
		return errno
	}
	return nil
}

// perInstance is how many files an inotify instance watches.
const perInstance = 2000

var instance int

func watch(i int) error {
	if i%perInstance == 0 {
		var err error
		if instance, err = unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			return err
		}
	}
	name := watched(i % perInstance)
	if i < perInstance {
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			return err
		}
	}
	_, err := unix.InotifyAddWatch(instance, name, unix.IN_ALL_EVENTS)
	return err
}

func watched(i int) string {
	return filepath.Join("/dev/shm", fmt.Sprintf("capacity-%d-%d", os.Getpid(), i))
}

func queue(i int) error {
	name, err := unix.BytePtrFromString(fmt.Sprintf("capacity-%d-%d", os.Getpid(), i))
	if err != nil {
		return err
	}
	err = call(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600, 0)
	if os.Args[1] == "take" && err == nil {
		// It is gone with the descriptor.
		err = call(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)))
	}
	return err
}

// lock locks a page of SysV shared memory, which counts for the user and not for
// the process.
func lock(int) error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 64<<10, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	if os.Args[1] == "take" {
		defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }()
	}
	const shmLock = 11
	return call(unix.SYS_SHMCTL, uintptr(id), shmLock, 0)
}

// pipe makes one of 1 MiB.
func pipe(int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, 1<<20)
	return err
}

// key adds 1,000 bytes as another user each time if it may.
func key(i int) error {
	if os.Args[1] == "hold" {
		if _, err := unix.SetfsuidRetUid(1 + i/18); err != nil {
			return err
		}
	}
	_, err := unix.AddKey("user", "capacity"+strconv.Itoa(i), make([]byte, 1000), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}
