// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// Handed is an overlay that the caller has mounted for the container, as dockerd
// does with its storage drivers and with containerd's images.
//
// The kernel gives no mapping to a mounted overlay, and another overlay on the
// same upper layer must not be used beside it: each sees stale names of what the
// other has changed. So the shim builds the container's own from the same layers
// and puts it in the place of the caller's. There it is the caller's to unmount;
// a container that has ended gets the plain one back, see record.Handed.
type Handed struct {
	Path    string // where it is mounted
	Overlay rootfs.Overlay
	Source  string // what it is called in mountinfo
	Dir     string // where relative layers start
	ID      int    // of the mount

	below string // what is mounted in it
	lost  error  // why its layers cannot be found
}

// FindHanded looks at what is mounted at a rootfs directory; it returns nil if
// that is no overlay, or no mount at all: then there is nothing to be replaced.
func FindHanded(path string) (*Handed, error) {
	h, err := findOverlay(path)
	if h == nil || err != nil {
		return nil, err
	}
	if h.below != "" {
		return nil, fmt.Errorf("rootfs %q is an overlay with a mount in it, %q, which would be lost when isolate mounts it anew with the container's ids; make that a mount of the container: %w",
			path, h.below, spec.ErrRefused)
	}
	if err := errors.Join(h.Overlay.Replaceable(), h.lost); err != nil {
		return nil, fmt.Errorf("rootfs %q: %w: %w", path, err, spec.ErrRefused)
	}
	return h, nil
}

// findOverlay describes the overlay that is mounted at a directory; nil if none is.
func findOverlay(path string) (*Handed, error) {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	mounted, err := mount.At(at)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	defer mounted.Close() //nolint:errcheck // O_PATH
	if mounted.FSType != "overlay" || !mounted.IsRoot() || mounted.Root != "/" {
		return nil, nil //nolint:nilnil // documented
	}
	overlay, err := rootfs.ParseMountedOverlay(mounted.Options, mounted.VFSOptions)
	if err != nil {
		return nil, fmt.Errorf("rootfs %q: %w", path, err)
	}
	h := &Handed{Path: at, Overlay: overlay, Source: mounted.Source, ID: mounted.ID, below: mounted.Below}
	h.Dir, h.lost = overlay.Base(at, isDir)
	return h, nil
}

// Upper is the upper layer, or "".
func (h *Handed) Upper() string {
	if h == nil {
		return ""
	}
	return h.Overlay.Relative(h.Dir).Upper
}

// layers is the overlay with the layers' own paths: those of dockerd are short
// symbolic links, and layers with a directory in common are cheaper to map. All of
// them are there: what the caller has mounted is not to go if it cannot be mounted
// again.
func (h *Handed) layers() (rootfs.Overlay, error) {
	o := h.Overlay.Relative(h.Dir)
	for _, dir := range []string{o.Upper, o.Work} {
		if dir != "" && !isDir(dir) {
			return o, fmt.Errorf("%w: there is no directory %q", rootfs.ErrNoLayers, dir)
		}
	}
	for _, list := range [][]string{o.Lower, o.DataLower} {
		for i, layer := range list {
			at, err := filepath.EvalSymlinks(layer)
			if err != nil {
				return o, fmt.Errorf("%w: %w", rootfs.ErrNoLayers, err)
			}
			list[i] = at
		}
	}
	return o, nil
}

// HandedRootfs is [Stage.Rootfs] for an overlay that the caller has mounted. as is
// what the record says of it.
func (s *Stage) HandedRootfs(ctx context.Context, h *Handed, as *record.Handed, target string, m idmap.Mapping, o RootfsOptions) (*chown.Snapshot, error) {
	if o.Chown != ChownAlways {
		err := s.TakeOver(ctx, h, as.Source, target, m, o)
		if err == nil || o.Chown == ChownNever || !errors.Is(err, errUnmappable) {
			return nil, err
		}
		log.G(ctx).WithError(err).Debug("isolate: ids of the rootfs are moved on disk")
		if err := as.GiveBack(); err != nil {
			return nil, err
		}
	}
	return s.Rootfs(ctx, nil, h.Path, target, m, o.always())
}

func (o RootfsOptions) always() RootfsOptions {
	o.Chown = ChownAlways
	return o
}

// TakeOver mounts the container's own overlay at target, and in the place of the
// caller's; the record must name both, the one in the caller's place by source.
//
// The caller's goes first, so that the two are never there at the same time: the
// kernel would warn of undefined behaviour, and rightly. What is between is called
// source too, and the record's clean-up gives the caller its own back.
func (s *Stage) TakeOver(ctx context.Context, h *Handed, source, target string, m idmap.Mapping, opts RootfsOptions) error {
	if err := s.takeOver(ctx, h, source, target, m, opts); err != nil {
		return refusal(fmt.Sprintf("rootfs %q", h.Path), err)
	}
	return nil
}

func (s *Stage) takeOver(ctx context.Context, h *Handed, source, target string, m idmap.Mapping, opts RootfsOptions) error {
	userns, err := s.Userns(m)
	if err != nil {
		return err
	}
	owner, ok := m.Root()
	if !ok {
		return fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	o, err := h.layers()
	if err != nil {
		return err
	}
	o.Attrs |= opts.attrs()
	if err := makeTarget(target); err != nil {
		return err
	}
	moved, err := hasMoved(opts.Store, nil, h.Path)
	if err != nil {
		return err
	}
	if moved { // by a kernel that could not map them
		if err := s.restore(ctx, nil, h.Path, target, opts); err != nil {
			return err
		}
	}
	if err := vacate(h, source); err != nil {
		return err
	}
	built, err := o.BuildAgain(userns, owner, opts.Method, source)
	if err != nil {
		return err
	}
	defer built.Close()
	// The runtime goes by a path that the container's root may use: neither
	// dockerd's directories nor those of a containerd that it has started are.
	again, err := s.kernel.CloneTree(int(built.Fd()), "", mount.CloneOptions{Propagation: unix.MS_PRIVATE})
	if err != nil {
		return err
	}
	defer again.Close()
	if err := s.kernel.Attach(again, target); err != nil {
		return err
	}
	placeholder, err := mount.At(h.Path)
	if err != nil {
		return err
	}
	defer placeholder.Close() //nolint:errcheck // O_PATH
	if placeholder.Source != source {
		return errReplaced
	}
	return placeholder.Replace(built)
}

var errReplaced = errors.New("somebody else mounts or unmounts there at the same time")

// vacate takes the caller's mount away.
func vacate(h *Handed, source string) error {
	mounted, err := mount.At(h.Path)
	if err != nil {
		return err
	}
	if mounted.ID != h.ID {
		return errors.Join(errReplaced, mounted.Close())
	}
	return mounted.Vacate(source)
}

func makeTarget(target string) error {
	if err := os.Mkdir(target, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create rootfs directory: %w", err)
	}
	return nil
}
