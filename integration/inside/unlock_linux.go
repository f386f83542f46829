// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attempt is one try to take a flag from a mount.
type attempt struct {
	Path, Flag, Op string
	// Error is the name of the errno, "" for success.
	Error string
}

// flag is a mount flag as mount(2) and mount_setattr(2) have it.
type flag struct {
	ms, attr uintptr
}

var flags = map[string]flag{
	"ro":     {unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
	"nosuid": {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
	"nodev":  {unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
	"noexec": {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
}

// unlock tries in all known ways to take flags from mounts. Arguments are
// "flag[,flag...]=path"; --nested, first, does the same in a user namespace of
// its own as well, and --control adds a mount that the caller may do anything
// with, to tell the kernel's lock from a missing privilege.
func unlock(args []string) (any, error) {
	var all []attempt
	for _, arg := range args {
		switch arg {
		case "--nested":
			all = append(all, nested(args)...)
			continue
		case "--control":
			tried, err := control()
			if err != nil {
				return nil, err
			}
			all = append(all, tried...)
			continue
		}
		names, path, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not flag=path", arg)
		}
		tried, err := unlockMount(path, strings.Split(names, ","))
		if err != nil {
			return nil, err
		}
		all = append(all, tried...)
	}
	return all, nil
}

func unlockMount(path string, names []string) ([]attempt, error) {
	var set uintptr
	for _, name := range names {
		f, ok := flags[name]
		if !ok {
			return nil, fmt.Errorf("%q is no flag", name)
		}
		set |= f.ms
	}
	scratch, err := os.MkdirTemp("/dev/shm", "unlock-")
	if err != nil {
		return nil, fmt.Errorf("make mount points: %w", err)
	}
	defer os.RemoveAll(scratch)
	var all []attempt
	for _, name := range names {
		f := flags[name]
		try := func(op string, err error) {
			all = append(all, attempt{path, name, op, errno(err)})
		}
		try("remount", unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|(set&^f.ms), ""))
		try("remount superblock", unix.Mount("", path, "", unix.MS_REMOUNT|(set&^f.ms), ""))
		try("mount_setattr", setattr(unix.AT_FDCWD, path, f))
		try("fspick", reconfigure(path))
		clone, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err == nil {
			err = setattr(clone, "", f)
			unix.Close(clone)
		}
		try("clone and mount_setattr", err)
		for _, recursive := range []uintptr{0, unix.MS_REC} {
			target, err := mountPoint(scratch, path)
			if err != nil {
				return nil, err
			}
			what := map[uintptr]string{0: "bind", unix.MS_REC: "rbind"}[recursive]
			if err := unix.Mount(path, target, "", unix.MS_BIND|recursive, ""); err != nil {
				// A mount that may not be copied at all is locked as well.
				try(what, err)
				continue
			}
			try(what+" and remount", unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|(set&^f.ms), ""))
			try(what+" and mount_setattr", setattr(unix.AT_FDCWD, target, f))
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				return nil, fmt.Errorf("unmount %q: %w", target, err)
			}
		}
		if name == "ro" {
			try("write", write(path))
		}
	}
	return all, nil
}

// control takes the flag from a mount of its own.
func control() ([]attempt, error) {
	dir, err := os.MkdirTemp("/dev/shm", "control-")
	if err != nil {
		return nil, fmt.Errorf("make mount point: %w", err)
	}
	defer os.Remove(dir)
	err = unix.Mount("control", dir, "tmpfs", unix.MS_RDONLY, "")
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return []attempt{{"control", "ro", "remount", errno(err)}}, nil
}

// nested does the same as root of a new user namespace.
func nested(args []string) []attempt {
	again := []string{"unlock"}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "--") {
			again = append(again, arg)
		}
	}
	command := exec.CommandContext(context.Background(), "/proc/self/exe", again...)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}
	out, err := command.Output()
	if err != nil {
		return []attempt{{"nested", "ro", "unshare", errno(err)}}
	}
	var all []attempt
	if err := json.Unmarshal(out, &all); err != nil {
		return []attempt{{"nested", "ro", "unshare", err.Error()}}
	}
	for i := range all {
		all[i].Op = "nested " + all[i].Op
	}
	return all
}

func setattr(dir int, path string, f flag) error {
	options := uint(0)
	if path == "" {
		options = unix.AT_EMPTY_PATH
	}
	return unix.MountSetattr(dir, path, options, &unix.MountAttr{Attr_clr: uint64(f.attr)})
}

// reconfigure changes the file system itself with the newer system calls.
func reconfigure(path string) error {
	fd, err := unix.Fspick(unix.AT_FDCWD, path, unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FsconfigReconfigure(fd)
}

func mountPoint(scratch, like string) (string, error) {
	info, err := os.Stat(like)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		path, err := os.MkdirTemp(scratch, "d-")
		return path, err
	}
	file, err := os.CreateTemp(scratch, "f-")
	if err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

// write opens a file for writing, or makes one in a directory.
func write(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		path = filepath.Join(path, ".written")
	} else if info.Mode()&os.ModeSocket != 0 {
		return unix.Chmod(path, uint32(info.Mode().Perm()))
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func errno(err error) string {
	if err == nil {
		return ""
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}
