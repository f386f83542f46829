// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// buildDetached is [MethodDetached].
func (o Overlay) buildDetached(l *layers, root idmap.Owner) (m *os.File, err error) {
	err = thread.Run(func() error {
		if err := thread.SetFSIDs(uint32(root.UID), uint32(root.GID)); err != nil {
			return err
		}
		c, err := mount.OpenFS("overlay")
		if err != nil {
			return err
		}
		defer c.Close()
		if err := o.configure(c, l); err != nil {
			return err
		}
		if err := c.Create(); err != nil {
			return err
		}
		m, err = c.Mount(o.mountAttrs())
		return err
	})
	return m, err
}

func (o Overlay) configure(c *mount.FSContext, l *layers) error {
	options := append([]mount.Option{{Key: "source", Value: o.source(), HasValue: true}}, o.Options...)
	if o.ReadOnly {
		options = append(options, mount.Option{Key: "ro"})
	}
	for _, option := range options {
		if err := c.Set(option); err != nil {
			return err
		}
	}
	for _, lower := range l.lower {
		if err := c.SetFile("lowerdir+", lower.dir); err != nil {
			return err
		}
	}
	for _, data := range l.data {
		if err := c.SetFile("datadir+", data.dir); err != nil {
			return err
		}
	}
	if l.upper == nil {
		return nil
	}
	if err := c.SetFile("upperdir", l.upper.dir); err != nil {
		return err
	}
	return c.SetFile("workdir", l.work.dir)
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
