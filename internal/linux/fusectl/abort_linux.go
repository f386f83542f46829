// SPDX-License-Identifier: Apache-2.0

package fusectl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Connection is a FUSE connection: what one server serves.
type Connection struct {
	// Device is the number of its superblock: N of the device 0:N in mountinfo
	// (proc_pid_mountinfo(5)).
	Device uint32
	// Owner is the user_id of its mount, as a uid of the reader. The user namespace
	// that the superblock belongs to maps it, as the kernel demands
	// (fs/fuse/inode.c: fuse_parse_param).
	Owner uint32
	// Waiting is the number of requests that have no answer.
	Waiting int
}

func (c Connection) String() string {
	return fmt.Sprintf("FUSE connection %d of user %d", c.Device, c.Owner)
}

// Abort ends the connections for which choose returns true, and returns them. Every
// process that waits in such a connection gets an error, and so does every later request
// (ECONNABORTED, ENOTCONN) and the server (ENODEV). Abort waits for no process.
//
// Abort ends exactly the connection that it has shown to choose: it uses one open file
// for both, which stays bound to the connection even if its number is given out again.
//
// Abort mounts the control file system and attaches the mount nowhere. A kernel without
// FUSE has no connections.
func Abort(choose func(Connection) bool) ([]Connection, error) {
	root, err := mount()
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control file system of FUSE: %w", err)
	}
	defer root.Close()
	dir, err := openAt(root, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("list FUSE connections: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list FUSE connections: %w", err)
	}
	var aborted []Connection
	var errs []error
	for _, name := range names {
		c, chosen, err := abort(dir, name, choose)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV): // it has just ended
		case err != nil:
			errs = append(errs, fmt.Errorf("FUSE connection %s: %w", name, err))
		case chosen:
			aborted = append(aborted, c)
		}
	}
	return aborted, errors.Join(errs...)
}

// mount makes a mount of the kernel's only instance.
func mount() (*os.File, error) {
	context, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), "fusectl"), nil
}

func abort(dir *os.File, name string, choose func(Connection) bool) (c Connection, chosen bool, _ error) {
	device, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return c, false, err
	}
	own, err := openAt(dir, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return c, false, err
	}
	defer own.Close()
	control, err := openAt(own, "abort", unix.O_WRONLY)
	if err != nil {
		return c, false, err
	}
	defer control.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(control.Fd()), &st); err != nil {
		return c, false, os.NewSyscallError("fstat", err)
	}
	waiting, err := openAt(own, "waiting", unix.O_RDONLY)
	if err != nil {
		return c, false, err
	}
	defer waiting.Close()
	text, err := io.ReadAll(waiting)
	if err != nil {
		return c, false, err
	}
	c = Connection{Device: uint32(device), Owner: st.Uid}
	// The text is empty if the connection has just ended.
	if c.Waiting, err = strconv.Atoi(strings.TrimSpace("0" + string(text))); err != nil {
		return c, false, err
	}
	if !choose(c) {
		return c, false, nil
	}
	_, err = control.WriteString("1")
	return c, true, err
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
