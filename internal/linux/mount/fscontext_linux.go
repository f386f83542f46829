// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/eintr"
)

// FSContext is a file system being configured (fsopen(2)).
type FSContext struct {
	fd     int
	fsType string
}

// OpenFS starts with one of the type.
func OpenFS(fsType string) (*FSContext, error) {
	fd, err := eintr.Get(func() (int, error) { return unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC) })
	if err != nil {
		return nil, fmt.Errorf("open file system context %q: %w", fsType, os.NewSyscallError("fsopen", err))
	}
	return &FSContext{fd: fd, fsType: fsType}, nil
}

// Close lets go of the context; what was mounted stays.
func (c *FSContext) Close() { unix.Close(c.fd) }

// SetFile gives a parameter a file.
func (c *FSContext) SetFile(key string, f *os.File) error {
	return c.explain("set "+key, unix.FsconfigSetFd(c.fd, key, int(f.Fd())))
}

// Set sets a parameter.
func (c *FSContext) Set(o Option) error {
	if !o.HasValue {
		return c.explain("set "+o.Key, unix.FsconfigSetFlag(c.fd, o.Key))
	}
	// mount(2) strips the quotes around an SELinux context, fsconfig(2) does not.
	return c.explain("set "+o.Key, unix.FsconfigSetString(c.fd, o.Key, strings.Trim(o.Value, `"`)))
}

// Create makes the file system, with the credentials of the calling thread.
func (c *FSContext) Create() error {
	return c.explain("create", eintr.Do(func() error { return unix.FsconfigCreate(c.fd) }))
}

// Mount returns the file system as a detached mount; attrs are MOUNT_ATTR_*.
func (c *FSContext) Mount(attrs uint64) (*os.File, error) {
	fd, err := eintr.Get(func() (int, error) {
		return unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(attrs))
	})
	if err != nil {
		return nil, c.explain("mount", err)
	}
	return os.NewFile(uintptr(fd), "mount:"+c.fsType), nil
}

// explain adds to an errno what the kernel says about it: the messages of a
// file system context are read from its descriptor, one at a time, as "e text".
func (c *FSContext) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var said []string
	buf := make([]byte, 1024)
	for {
		n, readErr := unix.Read(c.fd, buf)
		if errors.Is(readErr, unix.EINTR) {
			continue
		}
		if readErr != nil || n <= 0 {
			break
		}
		_, text, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
		said = append(said, text)
	}
	if len(said) == 0 {
		return fmt.Errorf("%s %s: %w", what, c.fsType, err)
	}
	return fmt.Errorf("%s %s: %w (kernel: %s)", what, c.fsType, err, strings.Join(said, "; "))
}
