// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// Kernel is what a stage needs the rights of the host's root for. Tests have one
// that needs none.
type Kernel interface {
	// Host returns an error if this process is not in the host's user namespace.
	Host() error
	Userns(m idmap.Mapping) (*os.File, error)
	Mount(source, target, fsType string, flags uintptr, data string) error
	Overlay(o rootfs.Overlay, userns *os.File, root idmap.Owner, method rootfs.Method) (*os.File, error)
	CloneTree(dirfd int, path string, o mount.CloneOptions) (*os.File, error)
	ClonePartial(dirfd int, path string, o mount.CloneOptions) (*os.File, []mount.Unmapped, error)
	Attach(m *os.File, target string) error
	Mknod(path string, mode uint32, dev int) error
	Chown(path string, uid, gid int) error
}

// Linux is the kernel of this host.
var Linux Kernel = linux{}

type linux struct{}

func (linux) Host() error { return userns.Host() }

func (linux) Userns(m idmap.Mapping) (*os.File, error) { return userns.New(m) }

func (linux) Mount(source, target, fsType string, flags uintptr, data string) error {
	return unix.Mount(source, target, fsType, flags, data)
}

func (linux) Overlay(o rootfs.Overlay, userns *os.File, root idmap.Owner, method rootfs.Method) (*os.File, error) {
	return o.Build(userns, root, method)
}

func (linux) CloneTree(dirfd int, path string, o mount.CloneOptions) (*os.File, error) {
	return mount.CloneTree(dirfd, path, o)
}

func (linux) ClonePartial(dirfd int, path string, o mount.CloneOptions) (*os.File, []mount.Unmapped, error) {
	return mount.ClonePartial(dirfd, path, o)
}

func (linux) Attach(m *os.File, target string) error { return mount.Attach(m, -1, target) }

func (linux) Mknod(path string, mode uint32, dev int) error { return unix.Mknod(path, mode, dev) }

func (linux) Chown(path string, uid, gid int) error { return os.Lchown(path, uid, gid) }
