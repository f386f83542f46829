// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// buildPrivate is [MethodPrivate]. The clones are attached below a tmpfs with
// short names, so that 500 layers with long paths stay within the page that
// mount(2) takes as options.
func (o Overlay) buildPrivate(l *layers, root idmap.Owner) (m *os.File, err error) {
	err = mount.InPrivate(func() error {
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
		if err := thread.SetFSIDs(uint32(root.UID), uint32(root.GID)); err != nil {
			return err
		}
		var flags uintptr
		if o.ReadOnly {
			flags = unix.MS_RDONLY
		}
		data := o.privateData(l)
		if err := eintr.Do(func() error { return unix.Mount(o.source(), "m", "overlay", flags, data) }); err != nil {
			return fmt.Errorf("mount overlay with %q: %w (the kernel log tells more)", data, os.NewSyscallError("mount", err))
		}
		m, err = mount.TakeOut("m", "overlay", o.cloneOptions())
		return err
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
		if err := mount.Attach(t, -1, name); err != nil {
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
