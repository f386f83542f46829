// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errNone = errors.New("the kernel has none")

// processes tries to reach what belongs to the host: processes, namespaces,
// sockets, keys, memory.
func processes(f facts) {
	pid := f.Pid
	try("pid:proc", func() error { _, err := os.Stat("/proc/" + strconv.Itoa(pid)); return err })
	try("pid:kill", func() error { return unix.Kill(pid, 0) })
	try("pid:pidfd_open", func() error { _, err := unix.PidfdOpen(pid, 0); return err })
	try("pid:ptrace", func() error {
		const seize = 0x4206
		return call(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0)
	})
	try("pid:process_vm_readv", func() error {
		var buffer [8]byte
		local := []unix.Iovec{{Base: &buffer[0], Len: 8}}
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
		return err
	})
	try("pid:prlimit", func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) })
	try("pid:sched_setaffinity", func() error {
		var set unix.CPUSet
		set.Set(0)
		return unix.SchedSetaffinity(pid, &set)
	})
	try("pid:kcmp", func() error { return call(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 0, 0, 0) })
	try("pid:move_pages", func() error { return call(unix.SYS_MOVE_PAGES, uintptr(pid), 0, 0, 0, 0, 0) })
	namespaces(f)
	sockets(f)
	keys(f)
	ipc("host", f.IPCKey)
	if f.OtherIPC != 0 {
		ipc("other", f.OtherIPC)
	}
}

// namespaces looks for a namespace of the host to enter.
func namespaces(f facts) {
	entries, err := os.ReadDir("/proc")
	must(err)
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		for kind, id := range f.Namespaces {
			link, err := os.Readlink("/proc/" + e.Name() + "/ns/" + kind)
			if err == nil && link == id {
				say("namespace:"+kind, allowed, e.Name())
			}
		}
	}
	ioctl := func(kind string, number uintptr, argument unsafe.Pointer) error {
		fd, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		defer unix.Close(fd)
		return call(unix.SYS_IOCTL, uintptr(fd), number, uintptr(argument))
	}
	try("namespace:parent-user", func() error { return ioctl("user", unix.NS_GET_PARENT, nil) })
	try("namespace:parent-pid", func() error { return ioctl("pid", unix.NS_GET_PARENT, nil) })
	for name, number := range map[string]uintptr{"next": 0x8010b70b, "previous": 0x8010b70c} { // NS_MNT_GET_NEXT, NS_MNT_GET_PREV
		try("namespace:"+name+"-mount", func() error {
			var info [2]uint64
			return ioctl("mnt", number, unsafe.Pointer(&info))
		})
	}
	for kind := range f.Namespaces {
		try("namespace:owner-"+kind, func() error { return owner(kind) })
	}
	try("namespace:enter-net", func() error {
		fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	})
	try("namespace:listmount", func() error {
		const sysListmount, root = 458, ^uint64(0)
		request := struct {
			size, spare uint32
			mount       uint64
			param       uint64
			namespace   uint64
		}{size: 32, mount: root, namespace: f.MountNS}
		var ids [16]uint64
		return call(sysListmount, uintptr(unsafe.Pointer(&request)), uintptr(unsafe.Pointer(&ids)), 16, 0)
	})
}

// owner gets at the user namespace that owns a namespace of this process.
func owner(kind string) error {
	fd, err := unix.Open("/proc/self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(err)
	defer unix.Close(fd)
	user, err := callFd(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_USERNS, 0)
	if err != nil {
		return err
	}
	defer unix.Close(user)
	var theirs, ours unix.Stat_t
	must(unix.Fstat(user, &theirs))
	must(unix.Stat("/proc/self/ns/user", &ours))
	if theirs.Ino == ours.Ino {
		return errors.New("own")
	}
	return nil
}

func sockets(f facts) {
	dial := func(network, address string) error {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err := d.DialContext(context.Background(), network, address)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	try("socket:abstract", func() error { return dial("unix", "@"+f.Abstract) })
	try("socket:loopback", func() error { return dial("tcp4", fmt.Sprintf("127.0.0.1:%d", f.Port)) })
	try("socket:path", func() error { return dial("unix", f.HostSocket) })
}

func keys(f facts) {
	for name, serial := range f.Keys {
		key(name, serial)
	}
	if f.OtherKey != 0 {
		key("other", f.OtherKey)
	}
	try("key:own-session", func() error {
		// The runtime gives each container a session keyring of its own.
		id, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_SESSION_KEYRING, 0, 0, 0)
		if err != nil {
			return err
		}
		if id == f.Keys["session"] {
			return nil
		}
		return errors.New("own")
	})
}

func key(name string, serial int) {
	for operation, command := range map[string]int{
		"describe": unix.KEYCTL_DESCRIBE, "read": unix.KEYCTL_READ, "revoke": unix.KEYCTL_REVOKE, "clear": unix.KEYCTL_CLEAR,
		"timeout": unix.KEYCTL_SET_TIMEOUT, "permissions": unix.KEYCTL_SETPERM, "chown": unix.KEYCTL_CHOWN,
	} {
		try("key:"+name+"/"+operation, func() error {
			argument := 0
			if operation == "permissions" {
				argument = 0x3f3f3f3f
			}
			_, err := unix.KeyctlInt(command, serial, argument, 0, 0)
			return err
		})
	}
	try("key:"+name+"/link", func() error {
		_, err := unix.KeyctlInt(unix.KEYCTL_LINK, serial, unix.KEY_SPEC_PROCESS_KEYRING, 0, 0)
		return err
	})
}

func ipc(name string, key int) {
	try("ipc:"+name+"/shm", func() error { return call(unix.SYS_SHMGET, uintptr(key), 0, 0) })
	try("ipc:"+name+"/msg", func() error { return call(unix.SYS_MSGGET, uintptr(key), 0) })
	try("ipc:"+name+"/sem", func() error { return call(unix.SYS_SEMGET, uintptr(key), 0, 0) })
}
