// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fsContext is a file system being configured (fsopen(2)).
type fsContext struct {
	fd     int
	fsType string
}

func openFSContext(fsType string) (*fsContext, error) {
	fd, err := retryOnEINTR(func() (int, error) { return unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC) })
	if err != nil {
		return nil, fmt.Errorf("open file system context %q: %w", fsType, os.NewSyscallError("fsopen", err))
	}
	return &fsContext{fd: fd, fsType: fsType}, nil
}

func (c *fsContext) close() { unix.Close(c.fd) }

func (c *fsContext) setFD(key string, f *os.File) error {
	return c.explain("set "+key, unix.FsconfigSetFd(c.fd, key, int(f.Fd())))
}

func (c *fsContext) set(o Option) error {
	if !o.HasValue {
		return c.explain("set "+o.Key, unix.FsconfigSetFlag(c.fd, o.Key))
	}
	// mount(2) strips the quotes around an SELinux context, fsconfig(2) does not.
	return c.explain("set "+o.Key, unix.FsconfigSetString(c.fd, o.Key, strings.Trim(o.Value, `"`)))
}

func (c *fsContext) create() error {
	return c.explain("create", ignoringEINTR(func() error { return unix.FsconfigCreate(c.fd) }))
}

func (c *fsContext) mount(attrs uint64) (*os.File, error) {
	fd, err := retryOnEINTR(func() (int, error) {
		return unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(attrs))
	})
	if err != nil {
		return nil, c.explain("mount", err)
	}
	return os.NewFile(uintptr(fd), "mount:"+c.fsType), nil
}

// explain adds to an errno what the kernel says about it: the messages of a
// file system context are read from its descriptor, one at a time, as "e text".
func (c *fsContext) explain(what string, err error) error {
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

// buildDetached is [MethodDetached].
func (o Overlay) buildDetached(l *layers, root Owner) (m *os.File, err error) {
	err = onDisposableThread(func() error {
		if err := assumeFSIDs(root); err != nil {
			return err
		}
		c, err := openFSContext("overlay")
		if err != nil {
			return err
		}
		defer c.close()
		if err := o.configure(c, l); err != nil {
			return err
		}
		if err := c.create(); err != nil {
			return err
		}
		m, err = c.mount(o.mountAttrs())
		return err
	})
	return m, err
}

func (o Overlay) configure(c *fsContext, l *layers) error {
	options := append([]Option{{Key: "source", Value: o.source(), HasValue: true}}, o.Options...)
	if o.ReadOnly {
		options = append(options, Option{Key: "ro"})
	}
	for _, option := range options {
		if err := c.set(option); err != nil {
			return err
		}
	}
	for _, lower := range l.lower {
		if err := c.setFD("lowerdir+", lower.dir); err != nil {
			return err
		}
	}
	for _, data := range l.data {
		if err := c.setFD("datadir+", data.dir); err != nil {
			return err
		}
	}
	if l.upper == nil {
		return nil
	}
	if err := c.setFD("upperdir", l.upper.dir); err != nil {
		return err
	}
	return c.setFD("workdir", l.work.dir)
}

func (o Overlay) mountAttrs() uint64 {
	if o.ReadOnly {
		return o.Attrs | attrRdonly
	}
	return o.Attrs
}

func (o Overlay) source() string {
	if o.Source == "" {
		return "overlay"
	}
	return o.Source
}
