// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// secretFile is a file of the victim's root file system, where every user may write.
const secretFile = "/tmp/secret"

// meet is the victim of another container that shares its network namespace: it
// listens there, and does nothing.
func meet(address string) {
	must(os.WriteFile(secretFile, []byte("secret"), 0o644))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	must(err)
	say("meeting", "ready", "")
	for {
		_, err := l.Accept() // open as long as the process
		must(err)
	}
}

// peer attacks a process that listens on an abstract socket, by the pidfd that the
// kernel gives of it to everybody who connects (SO_PEERPIDFD, Linux 6.5), and by
// its number where it is seen.
func peer(address string) {
	pidfd, err := peerOf(address)
	must(err)
	for kind, flag := range map[string]int{"mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "cgroup": unix.CLONE_NEWCGROUP} {
		try("peer/setns:"+kind, func() error { return elsewhere(func() error { return enterNamespace(pidfd, flag) }) })
	}
	try("peer/getfd", func() error { _, err := unix.PidfdGetfd(pidfd, 1, 0); return err })
	const getMountNamespace = 0xff03 // PIDFD_GET_MNT_NAMESPACE, Linux 6.11
	try("peer/ioctl", func() error { _, err := unix.IoctlRetInt(pidfd, getMountNamespace); return err })
	try("peer/walk", walkMounts)
	try("peer/signal", func() error { return unix.PidfdSendSignal(pidfd, 0, nil, 0) })

	pid := numberOf(pidfd)
	if pid <= 0 {
		say("peer/number", "hidden", "")
		return
	}
	say("peer/number", "seen", "")
	for _, file := range []string{"environ", "mem", "ns/mnt"} {
		try("peer/proc:"+file, func() error { return open(fmt.Sprintf("/proc/%d/%s", pid, file), unix.O_RDONLY) })
	}
	try("peer/proc:root", func() error { return readSecret(fmt.Sprintf("/proc/%d/root%s", pid, secretFile)) })
	try("peer/vm", func() error {
		var buffer [8]byte
		local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
		// The same program without relocation: what is here is there as well.
		_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&secretFileHeader)), Len: len(buffer)}}, 0)
		return err
	})
	try("peer/ptrace", func() error {
		const seize, detach = 0x4206, 17
		return elsewhere(func() error {
			if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0); errno != 0 {
				return errno
			}
			unix.RawSyscall6(unix.SYS_PTRACE, detach, uintptr(pid), 0, 0, 0, 0) //nolint:errcheck // it was attached a moment ago
			return nil
		})
	})
}

var secretFileHeader = secretFile // somewhere in the program's data

// ping sends an echo request as programs without CAP_NET_RAW do, and waits for the
// answer (icmp(7), ping_group_range).
func ping(address string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(address).To4())}
	if err := unix.Sendto(fd, []byte{8, 0, 0, 0, 0, 0, 0, 1}, 0, to); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 64), 0)
	return err
}

// peerOf connects to a socket, once somebody listens, and returns the pidfd of
// that process.
func peerOf(address string) (int, error) {
	var c *net.UnixConn
	err := errors.New("not tried")
	for deadline := time.Now().Add(20 * time.Second); err != nil; time.Sleep(10 * time.Millisecond) {
		if c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: address, Net: "unix"}); err != nil && time.Now().After(deadline) {
			return 0, err
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var pidfd int
	var getErr error
	err = raw.Control(func(fd uintptr) { pidfd, getErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD) })
	return pidfd, errors.Join(err, getErr)
}

// numberOf is the number of a process here, 0 or less if it is not seen.
func numberOf(pidfd int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	must(err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			must(err)
			return pid
		}
	}
	return 0
}

// enterNamespace enters a namespace, and proves a mount namespace by the secret.
func enterNamespace(fd, kind int) error {
	if err := unix.Setns(fd, kind); err != nil {
		return err
	}
	if kind == unix.CLONE_NEWNS {
		return readSecret(secretFile)
	}
	return nil
}

func readSecret(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && string(text) != "secret" {
		return fmt.Errorf("another file: %q", text)
	}
	return err
}

// walkMounts enters the mount namespaces that the kernel lists beside this one
// (NS_MNT_GET_NEXT and _PREV, Linux 6.12), until one has the secret.
func walkMounts() error {
	own, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, direction := range []uintptr{0x8010b70b, 0x8010b70c} {
		at := own
		for {
			info := struct {
				size, mounts uint32
				id           uint64
			}{size: 16}
			fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(at), direction, uintptr(unsafe.Pointer(&info)))
			if err = errno; errno != 0 {
				break
			}
			at = int(fd)
			if elsewhere(func() error { return enterNamespace(at, unix.CLONE_NEWNS) }) == nil {
				return nil
			}
		}
	}
	return err
}

// elsewhere runs fn on a thread with a root directory of its own, which ends with it.
func elsewhere(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}
