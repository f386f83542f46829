// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/openat"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/spec"
)

// store is a directory that an inner program keeps images or volumes in, and
// the programs that do.
type store struct {
	path     string
	programs []string
}

var stores = []store{
	{"/var/lib/docker", []string{"dockerd"}},
	{"/var/lib/containerd", []string{"containerd"}},
	{"/var/lib/containers", []string{"podman", "buildah", "crio"}},
	{"/var/lib/kubelet", []string{"kubelet"}},
	{"/var/lib/rancher", []string{"k3s", "rke2"}},
	{"/var/lib/k0s", []string{"k0s"}},
	{"/var/lib/buildkit", []string{"buildkitd"}},
}

// Stores gives inner image stores a place where they can use overlayfs.
//
// An overlay cannot be the upper layer of another one, so a store on the
// container's overlay rootfs would fall back to copying. Instead, each store is
// the directory of the container's own upper layer, through an id-mapped clone:
// on disk everything stays 0-based, survives a restart with another range, is
// counted as the container's disk use, and goes with it.
//
// A store that an image fills with more than can be brought there in good time
// stays where it is, with a warning.
//
// Only stores whose programs are there are prepared, so that a container that
// will not nest pays for a few look-ups. covered tells that the caller mounts
// something at a path or above it, which wins.
func (s *Stage) Stores(programs *Programs, upper string, m idmap.Mapping, covered func(string) bool) (_ map[string]string, warnings []string, err error) {
	owner, ok := m.Root()
	if !ok {
		return nil, nil, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	layer, err := os.OpenFile(upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open upper layer: %w", err)
	}
	defer layer.Close()

	out := map[string]string{}
	for _, st := range stores {
		if covered(st.path) {
			continue
		}
		if used, err := programs.Any(st.programs...); err != nil {
			return nil, nil, fmt.Errorf("inner store %s: %w", st.path, err)
		} else if !used {
			continue
		}
		err := prepareStoreAs(owner, programs.root, layer, st.path)
		if errors.Is(err, ErrElsewhere) {
			continue
		}
		if errors.Is(err, errTooMuch) {
			warnings = append(warnings, fmt.Sprintf("inner store %s: %v; programs inside cannot use overlayfs there unless a volume is mounted on it", st.path, err))
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("inner store %s: %w", st.path, err)
		}
		if out[st.path], err = s.store(layer, st.path, m); err != nil {
			return nil, nil, fmt.Errorf("inner store %s: %w", st.path, err)
		}
	}
	return out, warnings, nil
}

func (s *Stage) store(layer *os.File, name string, m idmap.Mapping) (string, error) {
	var userns *os.File
	if !s.moved {
		var err error
		if userns, err = s.Userns(m); err != nil {
			return "", err
		}
	}
	clone, err := cloneStore(s.kernel, layer, name, userns)
	if err != nil {
		return "", err
	}
	defer clone.Close()
	target, err := s.target(clone)
	if err != nil {
		return "", err
	}
	return target, s.kernel.Attach(clone, target)
}

// cloneStore returns the directory of the upper layer as a detached mount, mapped by a
// user namespace if there is one.
func cloneStore(kernel Kernel, layer *os.File, name string, userns *os.File) (*os.File, error) {
	dir, err := openIn(layer, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return kernel.CloneTree(int(dir.Fd()), "", mount.CloneOptions{Propagation: unix.MS_PRIVATE, Userns: userns})
}

// ErrElsewhere says that the image keeps the store somewhere else, by a
// symbolic link: it is left alone.
var ErrElsewhere = errors.New("not a plain directory")

// prepareStoreAs is prepareStore with the file system ids that it needs.
func prepareStoreAs(owner idmap.Owner, root, layer *os.File, name string) error {
	return thread.WithFSIDs(uint32(owner.UID), uint32(owner.GID), func() error { return prepareStore(root, layer, name) })
}

// prepareStore makes sure that the upper layer has the directory, with all that
// lower layers have in it. It is made through the overlay, so that its parents
// keep their owners and modes. It must run with the file system ids of the
// container's root.
func prepareStore(root, layer *os.File, name string) error {
	if err := mkdirAll(root, name); err != nil {
		return err
	}
	merged, err := openIn(root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer merged.Close()
	// The directory's own copy-up.
	if err := unix.Fchownat(int(merged.Fd()), "", -1, -1, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("copy up: %w", err)
	}
	upper, err := openIn(layer, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer upper.Close()
	if isOpaque(upper) {
		return nil // nothing below shows, or did before
	}
	c := copier{left: maxCopied}
	if err := c.copyUp(merged, upper, 0); err != nil {
		return err
	}
	// From now on the upper layer alone is the store: what an inner program
	// deletes there must not come back from a lower layer at the next start.
	for _, attr := range opaqueAttrs {
		if err := unix.Fsetxattr(int(upper.Fd()), attr, []byte("y"), 0); err != nil {
			return fmt.Errorf("mark the store as complete: %w", err)
		}
	}
	return nil
}

// opaqueAttrs are the marks of an opaque directory, for overlays mounted
// without and with userxattr (kernel, filesystems/overlayfs.rst).
var opaqueAttrs = []string{"trusted.overlay.opaque", "user.overlay.opaque"}

func isOpaque(dir *os.File) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(int(dir.Fd()), opaqueAttrs[0], value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// mkdirAll makes a directory below root without following links.
func mkdirAll(root *os.File, name string) error {
	if dir, err := openIn(root, name, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		return dir.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := mkdirAll(root, path.Dir(name)); err != nil {
		return err
	}
	parent, err := openIn(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	// 0711 is what dockerd and containerd make theirs.
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o711); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make directory %q: %w", name, err)
	}
	return nil
}

// openIn opens a path below dir that has no links in it.
func openIn(dir *os.File, unsafePath string, flags int) (*os.File, error) {
	f, err := openat.Open(dir, unsafePath, flags, openat.InRoot|openat.NoLinks|openat.SameMount)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, ErrElsewhere
	}
	return f, err
}
