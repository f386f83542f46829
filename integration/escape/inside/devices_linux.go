// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// nodes are the directories into which the test has put device nodes: one of a
// volume, one of the image.
var nodes = []string{"/vol/rw/nodes", "/escape-nodes"}

// devices tries to get at the machine's devices and file systems.
func devices(f facts) {
	must(os.MkdirAll(scratch, 0o700))
	for _, dir := range nodes {
		entries, err := os.ReadDir(dir)
		must(err)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			try("node:"+path, func() error { return open(path, unix.O_RDONLY) })
			try("node-write:"+path, func() error { return open(path, unix.O_WRONLY) })
		}
		disk := filepath.Join(dir, "disk")
		try("node-bind:"+disk, func() error { return bindNode(disk, 0) })
		try("node-mount:"+disk, func() error { return unix.Mount(disk, mountPoint(), "ext4", unix.MS_RDONLY, "") })
		try("node-swapon:"+disk, func() error { return swapon(disk) })
	}
	disk := int(unix.Mkdev(f.Block[0], f.Block[1]))
	for name, at := range map[string]string{"/tmp": scratch + "/disk", "volume": "/vol/rw/disk", "/dev": "/dev/disk"} {
		try("mknod-block:"+name, func() error { return unix.Mknod(at, unix.S_IFBLK|0o666, disk) })
		try("mknod-char:"+name, func() error { return unix.Mknod(at+"-c", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 1))) })
	}
	try("mknod-whiteout", func() error { return unix.Mknod(scratch+"/whiteout", unix.S_IFCHR, 0) })
	try("mknod-own-tmpfs", func() error {
		dir := mountPoint()
		must(unix.Mount("none", dir, "tmpfs", 0, ""))
		return unix.Mknod(dir+"/disk", unix.S_IFBLK|0o666, disk)
	})
	for _, path := range []string{
		"/dev/mem", "/dev/port", "/dev/kmem", "/proc/kcore", "/proc/kmsg", "/proc/sysrq-trigger", "/dev/kvm", "/dev/loop-control", "/dev/loop0",
		"/dev/mapper/control", "/dev/vda", "/dev/sda", "/dev/nvme0", "/dev/uinput", "/dev/console", "/dev/tty0", "/dev/vsock", "/dev/vhost-net",
	} {
		try("open:"+path, func() error {
			flags := unix.O_RDONLY
			if strings.HasSuffix(path, "trigger") {
				flags = unix.O_WRONLY
			}
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if isNull(fd) {
				return errors.New("null")
			}
			return nil
		})
	}
	present()
	types()
}

var points int

func mountPoint() string {
	points++
	dir := fmt.Sprintf("%s/m%d.%d", scratch, os.Getpid(), points)
	must(os.Mkdir(dir, 0o700))
	return dir
}

// bindNode opens a node through a mount of its own.
func bindNode(node string, flags uintptr) error {
	to := mountPoint() + "/node"
	must(os.WriteFile(to, nil, 0o600))
	if err := unix.Mount(node, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		return err
	}
	return open(to, unix.O_RDONLY)
}

// present opens all device nodes that the container was given.
func present() {
	err := filepath.WalkDir("/dev", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // a directory that is closed
		}
		if strings.HasPrefix(path, "/dev/pts/") && path != "/dev/pts/ptmx" {
			return nil // terminals of the container's own devpts
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR && st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil //nolint:nilerr // gone
		}
		rdev := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		report("present:"+path+" "+rdev, open(path, unix.O_RDWR))
		return nil
	})
	must(err)
}

// types mounts every type of file system that the kernel has.
func types() {
	text, err := os.ReadFile("/proc/filesystems")
	must(err)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		kind := fields[len(fields)-1]
		source := "none"
		if fields[0] != "nodev" {
			source = "/vol/rw/nodes/disk"
		}
		try("type:"+kind, func() error { return unix.Mount(source, mountPoint(), kind, 0, "") })
		try("fsopen:"+kind, func() error {
			fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.FsconfigSetString(fd, "source", source); err != nil {
				return err
			}
			return unix.FsconfigCreate(fd)
		})
	}
	// An image of a file system, without a loop device.
	try("image", func() error { return unix.Mount("/vol/rw/image", mountPoint(), "ext4", 0, "") })
}
