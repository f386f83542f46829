// SPDX-License-Identifier: Apache-2.0

package ns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ID names a namespace (namespaces(7): equal device and inode). The kernel gives
// the number out again when the namespace is gone, so an ID means something only
// while a process or a descriptor is in it.
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
		return ID{}, fmt.Errorf("namespace %q: %w", f.Name(), os.NewSyscallError("fstat", err))
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}, nil //nolint:unconvert // the type differs between architectures
}

// Owner returns the user, as the caller sees it, to whom an open user namespace
// belongs (NS_GET_OWNER_UID, ioctl_nsfs(2), Linux 4.11).
func Owner(userns *os.File) (uint32, error) {
	uid, err := unix.IoctlGetUint32(int(userns.Fd()), unix.NS_GET_OWNER_UID)
	runtime.KeepAlive(userns)
	if err != nil {
		return 0, fmt.Errorf("owner of user namespace %q: %w", userns.Name(), os.NewSyscallError("ioctl", err))
	}
	return uid, nil
}
