// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	roDir  = "/vol/ro"   // a read-only volume
	roFile = "/vol/file" // a read-only file
)

// scratch is a directory to work in.
var scratch = "/tmp/escape"

// mounts tries to write to what is mounted read-only.
func mounts(f facts) {
	must(os.MkdirAll(scratch, 0o700))
	for _, target := range []string{roDir, roFile} {
		ways("", target)
	}
	again("mntns", unix.CLONE_NEWNS)
	again("userns", unix.CLONE_NEWNS|unix.CLONE_NEWUSER)

	// What the runtime has mounted inside.
	for _, target := range []string{"/sys", "/proc/bus", "/proc/irq", "/sys/firmware", "/proc/keys"} {
		try("remount:"+target, func() error {
			return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		})
	}
	try("unmask:/proc/keys", func() error { return unix.Unmount("/proc/keys", unix.MNT_DETACH) })
	try("superblock:/", func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") })
	try("unmount:/vol/file", func() error {
		// It shows what is below, which is the container's own.
		must(unix.Unmount(roFile, unix.MNT_DETACH))
		return os.WriteFile(roFile, []byte("escaped"), 0o600)
	})
	chrootEscape()
}

// root tries to write to a read-only root.
func root(facts) {
	scratch = "/run/escape"
	must(os.MkdirAll(scratch, 0o700))
	ways("", "/")
}

// again runs the ways in namespaces of their own.
func again(name string, flags uintptr) {
	command := exec.CommandContext(context.Background(), "/proc/self/exe", "child", name)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &unix.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		command.SysProcAttr.UidMappings, command.SysProcAttr.GidMappings = own, own
	}
	if err := command.Run(); err != nil {
		report(name, err)
	}
}

func child(args []string) {
	switch args[0] {
	case "hog":
		hog()
		return
	case "nap":
		nap()
		return
	}
	// A mount can be moved only away from a parent that is not shared.
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, target := range []string{roDir, roFile} {
		ways(args[0]+"/", target)
		way(args[0]+"/move", target, func() (string, error) {
			to, err := spot(target)
			if err == nil {
				err = unix.Mount(target, to, "", unix.MS_MOVE, "")
			}
			if err == nil {
				err = remount(to)
			}
			return to, err
		})
	}
}

// way tries to make target writable at the path that f returns, and writes.
func way(name, target string, f func() (string, error)) {
	try(name+":"+target, func() error {
		at, err := f()
		if err != nil {
			return err
		}
		return write(at)
	})
}

// write writes to a directory, or to a file without changing its size.
func write(at string) error {
	info, err := os.Stat(at)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.WriteFile(filepath.Join(at, "escaped"), []byte("escaped"), 0o600)
	}
	f, err := os.OpenFile(at, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("escaped"), 0)
	return err
}

func remount(at string) error { return unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND, "") }

var spots int

// spot makes a mount point of target's kind.
func spot(target string) (string, error) {
	spots++
	path := fmt.Sprintf("%s/%d.%d", scratch, os.Getpid(), spots)
	info, err := os.Stat(target)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return path, os.Mkdir(path, 0o700)
	}
	return path, os.WriteFile(path, nil, 0o600)
}

var clearRO = &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}

// ways are the ways to change the flags of a mount.
func ways(prefix, target string) {
	direct := func(name string, f func() error) {
		way(prefix+name, target, func() (string, error) { return target, f() })
	}
	direct("write", func() error { return nil })
	direct("remount", func() error { return remount(target) })
	direct("superblock", func() error { return unix.Mount("", target, "", unix.MS_REMOUNT, "") })
	direct("setattr", func() error { return unix.MountSetattr(-1, target, 0, clearRO) })
	direct("setattr-recursive", func() error { return unix.MountSetattr(-1, target, unix.AT_RECURSIVE, clearRO) })
	direct("proc-root", func() error { return remount("/proc/1/root" + target) })
	direct("proc-root-setattr", func() error { return unix.MountSetattr(-1, "/proc/1/root"+target, 0, clearRO) })
	direct("fspick", func() error {
		fd, err := unix.Fspick(unix.AT_FDCWD, target, unix.FSPICK_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.FsconfigSetFlag(fd, "rw"); err != nil {
			return err
		}
		return unix.FsconfigReconfigure(fd)
	})
	bind := func(name string, flags uintptr, change func(string) error) {
		way(prefix+name, target, func() (string, error) {
			to, err := spot(target)
			if err == nil {
				err = unix.Mount(target, to, "", unix.MS_BIND|flags, "")
			}
			if err == nil {
				err = change(to)
			}
			return to, err
		})
	}
	bind("bind-remount", 0, remount)
	bind("rbind-remount", unix.MS_REC, remount)
	bind("bind-setattr", 0, func(to string) error { return unix.MountSetattr(-1, to, 0, clearRO) })
	viaFd(prefix, target)
	viaClone(prefix, target)
	if target == roDir {
		overlayUpper(prefix)
	}
}

// viaFd uses descriptors of what is mounted.
func viaFd(prefix, target string) {
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(err)
	defer unix.Close(fd)
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	way(prefix+"proc-fd", target, func() (string, error) { return link, remount(link) })
	way(prefix+"fd-setattr", target, func() (string, error) {
		return link, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, clearRO)
	})
	way(prefix+"reopen", target, func() (string, error) { return link, nil })
}

// viaClone uses clones that are attached nowhere, or elsewhere.
func viaClone(prefix, target string) {
	const clone = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	with := func(name string, f func(fd int) (string, error)) {
		way(prefix+name, target, func() (string, error) {
			fd, err := unix.OpenTree(unix.AT_FDCWD, target, clone)
			if err != nil {
				return "", err
			}
			// Left open: the link must work until the process ends.
			return f(fd)
		})
	}
	link := func(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
	with("clone-setattr", func(fd int) (string, error) {
		return link(fd), unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, clearRO)
	})
	with("clone-idmap", func(fd int) (string, error) {
		ns, err := os.Open("/proc/self/ns/user")
		must(err)
		defer ns.Close()
		return link(fd), unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	})
	with("clone-attach", func(fd int) (string, error) {
		to, err := spot(target)
		if err == nil {
			err = unix.MoveMount(fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err == nil {
			err = remount(to)
		}
		return to, err
	})
	// open_tree_attr(2), Linux 6.15.
	way(prefix+"opentree-attr", target, func() (string, error) {
		path, err := unix.BytePtrFromString(target)
		must(err)
		const sysOpenTreeAttr = 467
		fd, err := callFd(sysOpenTreeAttr, at(unix.AT_FDCWD), uintptr(unsafe.Pointer(path)), clone,
			uintptr(unsafe.Pointer(clearRO)), unsafe.Sizeof(*clearRO))
		return link(fd), err
	})
}

// at is a directory descriptor as a system call takes it.
func at(fd int) uintptr { return uintptr(fd) }

// overlayUpper has an overlay write to the volume.
func overlayUpper(prefix string) {
	way(prefix+"overlay", roDir, func() (string, error) {
		to, err := spot(roDir)
		must(err)
		return to, unix.Mount("none", to, "overlay", 0, "lowerdir=/,upperdir="+roDir+"/up,workdir="+roDir+"/work,userxattr")
	})
}

// chrootEscape leaves a chroot by a directory outside of it, and goes up.
func chrootEscape() {
	before, err := os.Stat("/")
	must(err)
	root, err := os.Open("/")
	must(err)
	defer root.Close()
	must(unix.Chroot(scratch))
	must(root.Chdir())
	for range 100 {
		must(unix.Chdir(".."))
	}
	must(unix.Chroot("."))
	after, err := os.Stat("/")
	must(err)
	if os.SameFile(before, after) {
		say("chroot", "same root", "")
		return
	}
	entries, _ := os.ReadDir("/")
	say("chroot", allowed, fmt.Sprint(entries))
}

// must is for what an ordinary container's root can do.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
