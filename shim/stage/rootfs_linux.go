// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	// Premounted is an overlay that the caller has mounted and that the container's
	// own replaces, by Replacement, which the record must have. Both are nil for none.
	Premounted  *rootfs.Premounted
	Replacement *rootfs.Replacement
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

// rootfsMount is the mounting of one rootfs.
type rootfsMount struct {
	*Stage
	RootfsOptions
	source *rootfs.Source
	target string
	ids    idmap.Mapping
}

// Rootfs mounts the container's rootfs at target, so that ids on disk are the
// ids inside: an overlay with lower layers, upper and work directory idmapped,
// or an idmapped clone of what is no overlay.
//
// Where that cannot be done, or is not wanted, and the options allow it, the ids
// are moved on disk, and the snapshot is returned, to be closed when the
// container is gone.
func (s *Stage) Rootfs(ctx context.Context, source *rootfs.Source, target string, ids idmap.Mapping, o RootfsOptions) (*chown.Snapshot, error) {
	m := &rootfsMount{Stage: s, RootfsOptions: o, source: source, target: target, ids: ids}
	if err := makeTarget(target); err != nil {
		return nil, err
	}
	if m.Chown == ChownAlways {
		return m.chowned(ctx)
	}
	attempt := m.mapped
	if m.Premounted != nil {
		attempt = m.replace
	}
	err := attempt(ctx)
	if err == nil || m.Chown == ChownNever || !errors.Is(err, errUnmappable) {
		return nil, err
	}
	log.G(ctx).WithError(err).Debug("isolate: ids of the rootfs are moved on disk")
	if m.Premounted != nil {
		if err := m.Replacement.Restore(chown.Settled); err != nil { // nothing has run on it
			return nil, err
		}
	}
	return m.chowned(ctx)
}

func makeTarget(target string) error {
	if err := os.Mkdir(target, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create rootfs directory: %w", err)
	}
	return nil
}

// mapped mounts the rootfs with mappings. A snapshot whose ids were moved before
// gets them back first, once it is clear that it can be mapped.
func (m *rootfsMount) mapped(ctx context.Context) error {
	userns, err := m.Userns(m.ids)
	if err != nil {
		return err
	}
	built, err := m.build(ctx, userns)
	if err != nil {
		return err
	}
	defer func() { built.Close() }()
	moved, err := m.hasMoved()
	if err != nil {
		return err
	}
	if moved {
		if err := built.Close(); err != nil {
			return fmt.Errorf("unmount rootfs: %w", err)
		}
		if err := m.restore(ctx); err != nil {
			return err
		}
		if built, err = m.build(ctx, userns); err != nil {
			return err
		}
	}
	return m.kernel.Attach(built, m.target)
}

// root are the host ids of the container's root.
func (m *rootfsMount) root() (idmap.Owner, error) {
	owner, ok := m.ids.Root()
	if !ok {
		return owner, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	return owner, nil
}

func (m *rootfsMount) build(ctx context.Context, userns *os.File) (*os.File, error) {
	switch m.source.Kind {
	case rootfs.OverlayMount:
		o, err := m.source.Overlay()
		if err != nil {
			return nil, fmt.Errorf("rootfs: %w", err)
		}
		owner, err := m.root()
		if err != nil {
			return nil, err
		}
		o.Attrs |= m.attrs()
		built, err := m.kernel.Overlay(o, userns, owner, m.Method)
		return built, refusal("rootfs", err)
	case rootfs.Directory, rootfs.Bind:
		return m.bind(ctx, userns, m.source.Dir, m.source.Options())
	default:
		// Mounted as containerd would, then cloned, and the original dropped.
		return m.throughMount(ctx, userns)
	}
}

func (m *rootfsMount) bind(ctx context.Context, userns *os.File, source string, options []string) (*os.File, error) {
	attrs := m.attrs()
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
		return m.kernel.CloneTree(int(dir.Fd()), "", mount.CloneOptions{Recursive: true, Userns: userns, SetAttrs: attrs, Propagation: unix.MS_PRIVATE})
	})
	return built, refusal(fmt.Sprintf("rootfs %q", source), err)
}

// PlainRootfs mounts a rootfs as containerd would, for a caller that mapped: what
// the container writes has its ids on disk.
func (s *Stage) PlainRootfs(source *rootfs.Source, target string) error {
	if err := makeTarget(target); err != nil {
		return err
	}
	if err := ctrdmount.All(plain(source), target); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	s.moved = true
	return nil
}

func plain(source *rootfs.Source) []ctrdmount.Mount {
	all := make([]ctrdmount.Mount, 0, len(source.Mounts))
	for _, m := range source.Mounts {
		all = append(all, ctrdmount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return all
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

func (m *rootfsMount) throughMount(ctx context.Context, userns *os.File) (_ *os.File, retErr error) {
	all := plain(m.source)
	if err := ctrdmount.All(all, m.target); err != nil {
		return nil, fmt.Errorf("mount rootfs: %w", err)
	}
	defer func() {
		if err := ctrdmount.UnmountMounts(all, m.target, unix.MNT_DETACH); err != nil {
			retErr = errors.Join(retErr, fmt.Errorf("unmount unmapped rootfs: %w", err))
		}
	}()
	return m.bind(ctx, userns, m.target, nil)
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
