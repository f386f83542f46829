// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inPrivateMounts runs fn on a disposable thread in a mount namespace of its
// own, which vanishes afterwards with everything fn mounted.
//
// The mounts are made slaves, not private: what the host unmounts meanwhile
// goes away here too, and nothing made here reaches the host. The thread returns
// to where it came from before it ends, so that the namespace is gone when
// inPrivateMounts returns and not some time later.
func inPrivateMounts(fn func() error) error {
	return onDisposableThread(func() (retErr error) {
		home, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a private mount namespace: %w", os.NewSyscallError("unshare", err))
		}
		defer func() {
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNS); err != nil {
				retErr = errors.Join(retErr, fmt.Errorf("leave private mount namespace: %w", err))
			}
		}()
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("make mounts slaves: %w", os.NewSyscallError("mount", err))
		}
		return fn()
	})
}

// buildPrivate is [MethodPrivate]. The clones are attached below a tmpfs with
// short names, so that 500 layers with long paths stay within the page that
// mount(2) takes as options.
func (o Overlay) buildPrivate(l *layers, root Owner) (m *os.File, err error) {
	err = inPrivateMounts(func() error {
		// Any existing directory will do; the layers are held by descriptor.
		base := o.Lower[0]
		if err := unix.Mount("tmpfs", base, "tmpfs", 0, "mode=0700,size=4m"); err != nil {
			return fmt.Errorf("mount tmpfs on %q: %w", base, os.NewSyscallError("mount", err))
		}
		if err := unix.Chdir(base); err != nil {
			return &os.PathError{Op: "chdir", Path: base, Err: err}
		}
		if err := l.attachHere(); err != nil {
			return err
		}
		if err := unix.Mkdir("m", 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: "m", Err: err}
		}
		// Not before: making the directories needs the right to write in them.
		if err := assumeFSIDs(root); err != nil {
			return err
		}
		var flags uintptr
		if o.ReadOnly {
			flags = unix.MS_RDONLY
		}
		data := o.privateData(l)
		if err := ignoringEINTR(func() error { return unix.Mount(o.source(), "m", "overlay", flags, data) }); err != nil {
			return fmt.Errorf("mount overlay with %q: %w (the kernel log tells more)", data, os.NewSyscallError("mount", err))
		}
		m, err = openTree(-1, "m", "overlay", false)
		if err != nil {
			return err
		}
		if err := setAttr(m, "overlay", o.cloneOptions()); err != nil {
			return errors.Join(err, m.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// attachHere attaches each clone to a directory in the working directory, named
// by its index.
func (l *layers) attachHere() error {
	for i, t := range l.trees {
		name := strconv.Itoa(i)
		if err := unix.Mkdir(name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: name, Err: err}
		}
		if err := moveMount(t, -1, name, 0); err != nil {
			return err
		}
	}
	return nil
}

// privateData writes the options for mount(2), with layers as attachHere placed
// them.
func (o Overlay) privateData(l *layers) string {
	path := func(one layer) string {
		if one.rel == "." {
			return strconv.Itoa(one.tree)
		}
		return strconv.Itoa(one.tree) + "/" + layerEscaper.Replace(one.rel)
	}
	var b strings.Builder
	for _, option := range o.Options {
		b.WriteString(option.String())
		b.WriteByte(',')
	}
	b.WriteString("lowerdir=")
	for i, lower := range l.lower {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(path(lower))
	}
	for _, data := range l.data {
		b.WriteString("::" + path(data))
	}
	if l.upper != nil {
		b.WriteString(",upperdir=" + path(*l.upper) + ",workdir=" + path(*l.work))
	}
	return b.String()
}
