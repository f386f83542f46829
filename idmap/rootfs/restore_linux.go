// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// Replacement names an overlay of the caller's, a [Premounted], that the shim has
// replaced by the container's own, at the same path.
//
// When the container has ended, a plain overlay of the same layers takes the
// place once more: the ids there are those on disk, so that dockerd can read or
// copy what is there, and a hand-made rootfs can be used again. To unmount it is
// the caller's business, before as after; what the caller has unmounted already
// stays so.
type Replacement struct {
	Path string // where it is mounted
	// Source is what the shim's mount there is called in mountinfo, like that of no
	// other container: the caller may mount another one there at any time.
	Source string
	// Was is what the caller's was called.
	Was string
	// Dir is where the relative layers in Options start.
	Dir string
	// Options are those of the caller's mount, as parseOverlay reads them.
	Options []string
}

// Restore puts a plain overlay in the place of the container's, or of what holds
// that place while there is none. In between, settle is called with the upper layer, if
// there is one, which nothing has mounted then.
func (r *Replacement) Restore(settle func(upper string) error) error {
	if err := r.clear(); err != nil {
		return fmt.Errorf("give back rootfs %q: %w", r.Path, err)
	}
	if err := r.settle(settle); err != nil {
		return fmt.Errorf("give back rootfs %q: %w", r.Path, err)
	}
	if err := r.refill(); err != nil {
		return fmt.Errorf("give back rootfs %q: %w", r.Path, err)
	}
	return nil
}

// ours returns the shim's mount, which may be under others; nil if there is none:
// the caller has unmounted it, perhaps removed what it was on.
func (r *Replacement) ours() (_ *mount.Mount, err error) {
	for {
		top, err := mount.At(r.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil //nolint:nilnil // documented
		}
		if err != nil {
			return nil, err
		}
		there, err := r.count()
		if err != nil || there == 0 {
			return nil, errors.Join(err, top.Close())
		}
		if there == 1 && top.IsRoot() && top.Source == r.Source {
			return top, nil
		}
		// The shim was killed between attaching one beneath and unmounting this one.
		if err := errors.Join(gone(top.Unmount()), top.Close()); err != nil {
			return nil, err
		}
	}
}

// clear takes the container's overlay away.
func (r *Replacement) clear() error {
	m, err := r.ours()
	if err != nil || m == nil {
		return err
	}
	if m.FSType != "overlay" {
		return m.Close()
	}
	return gone(m.Clear(r.Source))
}

// settle calls fn with the upper layer, if it is there.
func (r *Replacement) settle(fn func(upper string) error) error {
	o, err := parseOverlay(r.Options)
	if err != nil {
		return err
	}
	upper := o.relative(r.Dir).Upper
	if upper == "" || !isDir(upper) {
		return nil
	}
	return fn(upper)
}

// refill mounts what the caller had mounted, unless the caller has unmounted.
func (r *Replacement) refill() error {
	m, err := r.ours()
	if err != nil || m == nil {
		return err
	}
	o, err := parseOverlay(r.Options)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	plain, err := o.buildPlain(r.Was, r.Dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // the caller has removed the layers
		}
		return errors.Join(err, gone(m.Unmount()), m.Close())
	}
	return errors.Join(gone(m.Replace(plain)), plain.Close(), m.Close())
}

// count is how many mounts of the shim are there, on top or under others.
func (r *Replacement) count() (n int, err error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return 0, err
	}
	for _, m := range mounts {
		if m.Mountpoint == r.Path && m.Source == r.Source {
			n++
		}
	}
	return n, nil
}

// gone forgives that the caller has unmounted it at the same time.
func gone(err error) error {
	if errors.Is(err, mount.ErrDetached) {
		return nil
	}
	return err
}
