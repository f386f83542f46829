// SPDX-License-Identifier: Apache-2.0

package ns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ID names a namespace by its device and inode (namespaces(7)). The kernel gives the
// number out again when the namespace is gone, so an ID is valid only while a process is
// in the namespace or a descriptor refers to it.
type ID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// Of returns the name of an open namespace.
func Of(f *os.File) (ID, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	runtime.KeepAlive(f)
	if err != nil {
		return ID{}, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return id(st), nil
}

// At returns the name of the namespace at a path, such as /proc/PID/ns/user.
func At(path string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return id(st), nil
}

// Own returns the name of the calling thread's namespace of a kind. kind is a name in
// /proc/PID/ns.
func Own(kind string) (ID, error) { return At("/proc/thread-self/ns/" + kind) }

func id(st unix.Stat_t) ID {
	return ID{Dev: uint64(st.Dev), Ino: st.Ino} //nolint:unconvert // the type differs between architectures
}

// Userns opens the user namespace that a namespace belongs to; for a user namespace, its
// parent (NS_GET_USERNS, ioctl_nsfs(2), Linux 4.9). EPERM means that it is neither the
// caller's user namespace nor below it.
func Userns(f *os.File) (*os.File, error) { return related(f, unix.NS_GET_USERNS) }

// Parent opens the pid namespace above one (NS_GET_PARENT).
func Parent(f *os.File) (*os.File, error) { return related(f, unix.NS_GET_PARENT) }

func related(f *os.File, request uint) (*os.File, error) {
	for {
		fd, err := unix.IoctlRetInt(int(f.Fd()), request)
		runtime.KeepAlive(f)
		switch {
		case err == nil:
			// The kernel opens it with O_CLOEXEC (fs/nsfs.c: open_related_ns).
			return os.NewFile(uintptr(fd), "above:"+f.Name()), nil
		case !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("namespace above %q: %w", f.Name(), os.NewSyscallError("ioctl", err))
		}
	}
}

// Owner returns the user who owns an open user namespace, as a uid of the caller
// (NS_GET_OWNER_UID, ioctl_nsfs(2), Linux 4.11).
func Owner(userns *os.File) (uint32, error) {
	uid, err := unix.IoctlGetUint32(int(userns.Fd()), unix.NS_GET_OWNER_UID)
	runtime.KeepAlive(userns)
	if err != nil {
		return 0, fmt.Errorf("owner of user namespace %q: %w", userns.Name(), os.NewSyscallError("ioctl", err))
	}
	return uid, nil
}
