// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotGroup says that a directory is not a group below the root of a cgroup mount.
var ErrNotGroup = errors.New("not a group below a mounted cgroup hierarchy")

// open opens a group. The host has made the path; the container owns what is below.
func open(dir string) (*os.File, error) {
	top, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := check(top); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), top.Close())
	}
	return top, nil
}

// check proves that a directory is a group and not the root of a mount: the root shows
// the groups of the whole machine.
func check(top *os.File) error {
	var sys unix.Statfs_t
	if err := unix.Fstatfs(int(top.Fd()), &sys); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if !isCgroup(sys) {
		return ErrNotGroup
	}
	var here, above unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &here); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := unix.Fstatat(int(top.Fd()), "..", &above, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	if here.Dev != above.Dev || here.Ino == above.Ino {
		return ErrNotGroup
	}
	return nil
}

func isCgroup(sys unix.Statfs_t) bool {
	return int64(sys.Type) == unix.CGROUP_SUPER_MAGIC || int64(sys.Type) == unix.CGROUP2_SUPER_MAGIC //nolint:unconvert // narrower on some platforms
}

// read reads a file of the group called name in the directory at.
func read(at int, name, file string) (string, error) {
	fd, err := unix.Openat(at, name+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), file)
	content, err := io.ReadAll(f)
	return string(content), errors.Join(err, f.Close())
}

// write writes to a file by one write(2): the kernel takes each write as one command.
func write(at int, name, file, text string) error {
	fd, err := unix.Openat(at, name+"/"+file, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	return errors.Join(err, unix.Close(fd))
}

// gone tells that a group does not exist, or was removed while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
