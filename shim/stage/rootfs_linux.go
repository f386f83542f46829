// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/api/types"
	ctrdmount "github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// Mapped reports whether rootfs mounts come with id mappings of their own, as
// containerd's snapshotters add them for a client that mapped.
func Mapped(mounts []*types.Mount) bool {
	return slices.ContainsFunc(mounts, func(m *types.Mount) bool {
		o, err := rootfs.ParseOverlay(m.Options)
		return err == nil && o.Adopted != nil
	})
}

// RootfsOptions say how a rootfs is mounted.
type RootfsOptions struct {
	Method rootfs.Method
	// NoDev keeps device nodes that are part of an image from being opened:
	// through an id mapping they belong to the container's root, and only the
	// device cgroup stands before the disk. The container's own nodes are mounts
	// of their own.
	//
	// It is not for containers in which others run. The kernel locks the flag,
	// and runc before 1.2 does not repeat locked flags when it makes a bind mount
	// read-only: whatever an inner container gets of this rootfs to read, from
	// docker run --init to the certificates of a control plane, would fail with
	// "operation not permitted".
	NoDev bool
	// Chown says when the ids are moved on disk instead.
	Chown ChownPolicy
	// Store is where the state of snapshots with moved ids is.
	Store chown.Store
	// Owner names the container, and Alive tells whether another one of such a
	// name still runs.
	Owner string
	Alive func(owner string) bool
	// Warn takes what a user will miss.
	Warn func(warnings ...string)
}

// ChownPolicy says when the ids of a rootfs are moved on disk.
type ChownPolicy uint8

// The policies.
const (
	ChownNever    ChownPolicy = iota
	ChownFallback             // if it cannot be mapped
	ChownAlways               // it is never mapped
)

func (o RootfsOptions) attrs() uint64 {
	if o.NoDev {
		return unix.MOUNT_ATTR_NODEV
	}
	return 0
}

// Rootfs mounts the container's rootfs at target, so that ids on disk are the
// ids inside: an overlay with lower layers, upper and work directory idmapped,
// or an idmapped clone of what is no overlay. dir is the rootfs for callers
// that hand over a directory instead of mounts.
//
// Where that cannot be done, or is not wanted, and the options allow it, the ids
// are moved on disk, and the snapshot is returned, to be closed when the
// container is gone.
func (s *Stage) Rootfs(ctx context.Context, mounts []*types.Mount, dir, target string, m idmap.Mapping, o RootfsOptions) (*chown.Snapshot, error) {
	if err := os.Mkdir(target, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create rootfs directory: %w", err)
	}
	if o.Chown != ChownAlways {
		err := s.mapped(ctx, mounts, dir, target, m, o)
		if err == nil || o.Chown == ChownNever || !errors.Is(err, errUnmappable) {
			return nil, err
		}
		log.G(ctx).WithError(err).Debug("isolate: ids of the rootfs are moved on disk")
	}
	return s.chowned(ctx, mounts, dir, target, m, o)
}

// mapped mounts the rootfs with mappings. A snapshot whose ids were moved before
// gets them back first, once it is clear that it can be mapped.
func (s *Stage) mapped(ctx context.Context, mounts []*types.Mount, dir, target string, m idmap.Mapping, o RootfsOptions) error {
	userns, err := s.Userns(m)
	if err != nil {
		return err
	}
	built, err := s.build(ctx, userns, mounts, dir, target, m, o)
	if err != nil {
		return err
	}
	defer func() { built.Close() }()
	moved, err := hasMoved(o.Store, mounts, dir)
	if err != nil {
		return err
	}
	if moved {
		if err := built.Close(); err != nil {
			return fmt.Errorf("unmount rootfs: %w", err)
		}
		if err := s.restore(ctx, mounts, dir, target, o); err != nil {
			return err
		}
		if built, err = s.build(ctx, userns, mounts, dir, target, m, o); err != nil {
			return err
		}
	}
	return s.kernel.Attach(built, target)
}

func (s *Stage) build(ctx context.Context, userns *os.File, mounts []*types.Mount, dir, target string, m idmap.Mapping, opts RootfsOptions) (*os.File, error) {
	switch {
	case len(mounts) == 1 && mounts[0].Type == "overlay":
		o, err := rootfs.ParseOverlay(mounts[0].Options)
		if err != nil {
			return nil, fmt.Errorf("rootfs: %w", err)
		}
		owner, ok := m.Root()
		if !ok {
			return nil, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
		}
		o.Attrs |= opts.attrs()
		built, err := s.kernel.Overlay(o, userns, owner, opts.Method)
		return built, refusal("rootfs", err)
	case len(mounts) == 0:
		return s.bindRootfs(ctx, userns, dir, nil, opts.attrs())
	case len(mounts) == 1 && isBind(mounts[0]):
		return s.bindRootfs(ctx, userns, mounts[0].Source, mounts[0].Options, opts.attrs())
	default:
		// A chain, or a file system of its own (erofs, ext4 image): mounted
		// as containerd would, then cloned, and the original dropped.
		return s.throughMount(ctx, userns, mounts, target, opts.attrs())
	}
}

func isBind(m *types.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func (s *Stage) bindRootfs(ctx context.Context, userns *os.File, source string, options []string, attrs uint64) (*os.File, error) {
	for _, o := range options {
		attr, _ := attribute(o)
		attrs |= attr
	}
	dir, err := new(Sources).Open(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("rootfs: %w", err)
	}
	defer dir.Close()
	built, err := bounded(ctx, source, func() (*os.File, error) {
		return s.kernel.CloneTree(int(dir.Fd()), "", mount.CloneOptions{Recursive: true, Userns: userns, SetAttrs: attrs, Propagation: unix.MS_PRIVATE})
	})
	return built, refusal(fmt.Sprintf("rootfs %q", source), err)
}

// PlainRootfs mounts a rootfs as containerd would, for a caller that mapped: what
// the container writes has its ids on disk.
func (s *Stage) PlainRootfs(mounts []*types.Mount, target string) error {
	if err := os.Mkdir(target, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create rootfs directory: %w", err)
	}
	if err := ctrdmount.All(plain(mounts), target); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	s.moved = true
	return nil
}

func plain(mounts []*types.Mount) []ctrdmount.Mount {
	all := make([]ctrdmount.Mount, 0, len(mounts))
	for _, m := range mounts {
		all = append(all, ctrdmount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return all
}

// Upper returns the upper layer of a rootfs that is an overlay, or "".
func Upper(mounts []*types.Mount) string {
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return ""
	}
	o, err := rootfs.ParseOverlay(mounts[0].Options)
	if err != nil {
		return "" // Rootfs has reported it
	}
	return o.Upper
}

// Seal makes an overlay that Rootfs has mounted read-only for good, once the
// runtime has made its mount points in it: the file system itself, since the
// container's root may change the flags of its mounts.
func Seal(target string) (retErr error) {
	fd, err := unix.Fspick(unix.AT_FDCWD, target, unix.FSPICK_CLOEXEC|unix.FSPICK_NO_AUTOMOUNT)
	if err != nil {
		return fmt.Errorf("make rootfs read-only: %w", err)
	}
	defer func() { retErr = errors.Join(retErr, unix.Close(fd)) }()
	if err := unix.FsconfigSetFlag(fd, "ro"); err != nil {
		return fmt.Errorf("make rootfs read-only: %w", err)
	}
	if err := unix.FsconfigReconfigure(fd); err != nil {
		return fmt.Errorf("make rootfs read-only: %w", err)
	}
	return nil
}

// remedy tells what would make a rootfs mappable.
func remedy(err error) string {
	const place = "containerd's root directory on a file system that can be idmapped (ext4, xfs, btrfs; tmpfs since 6.3)"
	kernel := ""
	if unmappable := (*mount.NotIDMappableError)(nil); errors.As(err, &unmappable) {
		kernel = unmappable.Kernel
	}
	unbuildable := (*rootfs.UnbuildableError)(nil)
	if errors.As(err, &unbuildable) {
		kernel = unbuildable.Kernel
	}
	switch {
	case feature.Older(kernel, "5.19"):
		return "use Linux 5.19 or newer, with " + place
	case unbuildable != nil:
		return "see the kernel log (dmesg), take out of the snapshotter's mount options what the kernel refuses, and keep " + place
	}
	return "keep the rootfs, or " + place
}

func (s *Stage) throughMount(ctx context.Context, userns *os.File, mounts []*types.Mount, target string, attrs uint64) (_ *os.File, retErr error) {
	all := plain(mounts)
	if err := ctrdmount.All(all, target); err != nil {
		return nil, fmt.Errorf("mount rootfs: %w", err)
	}
	defer func() {
		if err := ctrdmount.UnmountMounts(all, target, unix.MNT_DETACH); err != nil {
			retErr = errors.Join(retErr, fmt.Errorf("unmount unmapped rootfs: %w", err))
		}
	}()
	return s.bindRootfs(ctx, userns, target, nil, attrs)
}

// errUnmappable says that this kernel cannot map this rootfs.
var errUnmappable = errors.New("rootfs cannot be mapped")

// unmappableError is a refusal that a chown can help.
type unmappableError struct{ error }

func (e unmappableError) Unwrap() error { return e.error }

func (e unmappableError) Is(target error) bool { return target == errUnmappable }

// refusal adds to an error that means "this kernel cannot" what to do about it.
func refusal(what string, err error) error {
	var unbuildable *rootfs.UnbuildableError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mount.ErrNotIDMappable), errors.As(err, &unbuildable):
		return unmappableError{fmt.Errorf("%s: %w; %s, or set rootfs.fallback = \"chown\" to have its files copied and chowned: %w", what, err, remedy(err), spec.ErrRefused)}
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
