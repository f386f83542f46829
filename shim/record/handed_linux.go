// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// Handed names an overlay of the caller's that the shim has replaced by the
// container's own, at the same path.
//
// When the container has ended, a plain overlay of the same layers takes the
// place once more: the ids there are those on disk, so that dockerd can read or
// copy what is there, and a hand-made rootfs can be used again. To unmount it is
// the caller's business, before as after; what the caller has unmounted already
// stays so.
type Handed struct {
	Path string `json:"path"` // where it is mounted
	// Source is what the shim's mount there is called in mountinfo, like that of no
	// other container: the caller may mount another one there at any time.
	Source string `json:"source"`
	// Was is what the caller's was called.
	Was string `json:"was"`
	// Dir is where the relative layers in Options start.
	Dir string `json:"dir,omitempty"`
	// Options are those of the caller's mount, as rootfs.ParseOverlay reads them.
	Options []string `json:"options"`
}

// NewSource makes a name for the shim's mount.
func NewSource() string { return "isolate-" + strings.ToLower(rand.Text()[:12]) }

func (h *Handed) valid() error {
	if h == nil {
		return nil
	}
	for _, dir := range []string{h.Path, h.Dir} {
		if dir != "" && (!filepath.IsAbs(dir) || filepath.Clean(dir) != dir) {
			return fmt.Errorf("record: %q is not a clean absolute path", dir)
		}
	}
	if h.Path == "" || !strings.HasPrefix(h.Source, "isolate-") {
		return fmt.Errorf("record: replaced mount %q called %q", h.Path, h.Source)
	}
	return nil
}

// GiveBack puts a plain overlay in the place of the container's, or of what holds
// that place while there is none.
func (h *Handed) GiveBack() error {
	if h == nil {
		return nil
	}
	if err := h.vacate(); err != nil {
		return fmt.Errorf("give back rootfs %q: %w", h.Path, err)
	}
	if err := h.restore(); err != nil {
		return fmt.Errorf("give back rootfs %q: %w", h.Path, err)
	}
	return nil
}

// ours returns the shim's mount, which may be under others; nil if there is none:
// the caller has unmounted it, perhaps removed what it was on.
func (h *Handed) ours() (_ *mount.Mount, err error) {
	for {
		top, err := mount.At(h.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil //nolint:nilnil // documented
		}
		if err != nil {
			return nil, err
		}
		there, err := h.count()
		if err != nil || there == 0 {
			return nil, errors.Join(err, top.Close())
		}
		if there == 1 && top.IsRoot() && top.Source == h.Source {
			return top, nil
		}
		// The shim was killed between attaching one beneath and unmounting this one.
		if err := errors.Join(gone(top.Unmount()), top.Close()); err != nil {
			return nil, err
		}
	}
}

// vacate takes the container's overlay away.
func (h *Handed) vacate() error {
	m, err := h.ours()
	if err != nil || m == nil {
		return err
	}
	if m.FSType != "overlay" {
		return m.Close()
	}
	return gone(m.Vacate(h.Source))
}

// restore mounts what the caller had mounted, unless the caller has unmounted.
func (h *Handed) restore() error {
	m, err := h.ours()
	if err != nil || m == nil {
		return err
	}
	o, err := rootfs.ParseOverlay(h.Options)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	plain, err := o.BuildPlain(h.Was, h.Dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // the caller has removed the layers
		}
		return errors.Join(err, gone(m.Unmount()), m.Close())
	}
	return errors.Join(gone(m.Replace(plain)), plain.Close(), m.Close())
}

// count is how many mounts of the shim are there, on top or under others.
func (h *Handed) count() (n int, err error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return 0, err
	}
	for _, m := range mounts {
		if m.Mountpoint == h.Path && m.Source == h.Source {
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
