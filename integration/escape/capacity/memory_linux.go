// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespace makes a namespace and keeps it: by a descriptor, and once there are many,
// by a mount.
func namespace(i int) error {
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return err
	}
	const own = "/proc/thread-self/ns/uts"
	if i < 10_000 {
		return ignore(unix.Open(own, unix.O_RDONLY|unix.O_CLOEXEC, 0))
	}
	name, err := empty("/dev", i)
	if err != nil {
		return err
	}
	return unix.Mount(own, name, "", unix.MS_BIND, "")
}

// empty makes an empty file.
func empty(dir string, i int) (string, error) {
	name := filepath.Join(dir, "capacity-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i))
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	return name, unix.Close(fd)
}

func node(i int) error {
	_, err := empty("/dev/shm", i)
	return err
}

// mount mounts a file system of its own, each on the one before.
func mount(int) error { return unix.Mount("capacity", "/dev/shm", "tmpfs", 0, "") }

// epolls are how many sets watch each file.
const epolls = 100

var sets []int

func epoll(i int) error {
	if len(sets) == 0 {
		for range epolls {
			set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			if err != nil {
				return err
			}
			sets = append(sets, set)
		}
	}
	if i%epolls == 0 {
		var err error
		if watchedFile, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			return err
		}
	}
	return unix.EpollCtl(sets[i%epolls], unix.EPOLL_CTL_ADD, watchedFile, &unix.EpollEvent{Events: unix.EPOLLIN})
}

var watchedFile int

// ring makes an io_uring.
func ring(int) error {
	var parameters [120]byte
	return call(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&parameters)))
}

// semaphores makes a set of 250 System V semaphores.
func semaphores(int) error { return call(unix.SYS_SEMGET, unix.IPC_PRIVATE, 250, unix.IPC_CREAT|0o600) }
