// SPDX-License-Identifier: Apache-2.0

// Package stagetest has a kernel for tests that need no rights. It mounts nothing:
// it keeps a table of what would be mounted, of the whole test process as the
// kernel's is, and a log of what it was asked for.
package stagetest

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

var table struct {
	sync.Mutex
	mounts map[string]*Kernel // who mounted there, by mount point
}

// Kernel implements stage.Kernel.
type Kernel struct {
	// Unmapped are the file systems that no volume can be mapped with.
	Unmapped []mount.Unmapped
	// Unmounting is called before each unmount of what this kernel mounted.
	Unmounting func(target string)
	// Fail is how the calls begin, as the log has them, that fail, and Err with what:
	// EIO if it is nil. Empty for none.
	Fail string
	Err  error

	mu  sync.Mutex
	log []string
}

// Log returns the calls that have succeeded, and the unmounts.
func (k *Kernel) Log() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.log)
}

// Has tells whether the log has a call with this prefix.
func (k *Kernel) Has(call string) bool {
	return slices.ContainsFunc(k.Log(), func(c string) bool { return strings.HasPrefix(c, call) })
}

// Mounted lists the mount points of what is mounted.
func (k *Kernel) Mounted() (targets []string) {
	table.Lock()
	defer table.Unlock()
	for target, by := range table.mounts {
		if by == k {
			targets = append(targets, target)
		}
	}
	slices.Sort(targets)
	return targets
}

func (k *Kernel) do(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Fail != "" && strings.HasPrefix(call, k.Fail) {
		return fmt.Errorf("%s: %w", call, cmp.Or(k.Err, error(unix.EIO)))
	}
	k.log = append(k.log, call)
	return nil
}

func (k *Kernel) mount(target string) {
	table.Lock()
	defer table.Unlock()
	if table.mounts == nil {
		table.mounts = map[string]*Kernel{}
	}
	table.mounts[target] = k
}

// Unmount stands in for umount2(2). What was written to the mount goes with it.
func Unmount(target string, _ int) error {
	if _, err := os.Lstat(target); err != nil {
		return unix.ENOENT
	}
	table.Lock()
	by := table.mounts[target]
	for other := range table.mounts {
		if other == target || strings.HasPrefix(other, target+"/") {
			delete(table.mounts, other)
		}
	}
	table.Unlock()
	if by == nil {
		return unix.EINVAL
	}
	if by.Unmounting != nil {
		by.Unmounting(target)
	}
	if err := by.do("unmount %s", filepath.Base(target)); err != nil {
		return err
	}
	entries, err := os.ReadDir(target)
	for _, e := range entries {
		path := filepath.Join(target, e.Name())
		_ = os.Chmod(path, 0o700)
		_ = os.RemoveAll(path)
	}
	return err
}

// Host is of no account unless it is to fail.
func (k *Kernel) Host() error {
	if k.Fail == "host" {
		return k.do("host")
	}
	return nil
}

// Userns returns the user namespace of the test.
func (k *Kernel) Userns(m idmap.Mapping) (*os.File, error) {
	if err := k.do("userns %v", m); err != nil {
		return nil, err
	}
	return os.Open("/proc/self/ns/user")
}

// Mount notes a mount.
func (k *Kernel) Mount(_, target, fsType string, flags uintptr, data string) error {
	if fsType == "" {
		return k.do("change %s %#x", filepath.Base(target), flags)
	}
	if err := k.do("mount %s %s %s", fsType, filepath.Base(target), data); err != nil {
		return err
	}
	k.mount(target)
	return nil
}

// Overlay opens the upper layer.
func (k *Kernel) Overlay(o rootfs.Overlay, _ *os.File, root idmap.Owner, method rootfs.Method) (*os.File, error) {
	if err := k.do("overlay %s for %d by %v", filepath.Base(o.Upper), root.UID, method); err != nil {
		return nil, err
	}
	return os.Open(o.Upper)
}

// CloneTree opens the source.
func (k *Kernel) CloneTree(dirfd int, path string, o mount.CloneOptions) (*os.File, error) {
	if dirfd >= 0 && path == "" {
		path = fmt.Sprintf("/proc/self/fd/%d", dirfd)
	}
	source, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if err := k.do("clone %s %#x", filepath.Base(source), o.SetAttrs); err != nil {
		return nil, err
	}
	return os.OpenFile(source, unix.O_PATH, 0)
}

// ClonePartial opens the source.
func (k *Kernel) ClonePartial(dirfd int, path string, o mount.CloneOptions) (*os.File, []mount.Unmapped, error) {
	f, err := k.CloneTree(dirfd, path, o)
	return f, slices.Clone(k.Unmapped), err
}

// Attach notes a mount.
func (k *Kernel) Attach(_ *os.File, target string) error {
	if _, err := os.Lstat(target); err != nil {
		return err
	}
	if err := k.do("attach %s", filepath.Base(target)); err != nil {
		return err
	}
	k.mount(target)
	return nil
}

// Mknod makes a plain file.
func (k *Kernel) Mknod(path string, mode uint32, dev int) error {
	if err := k.do("mknod %o %d:%d", mode, unix.Major(uint64(dev)), unix.Minor(uint64(dev))); err != nil { //nolint:gosec // device numbers are positive
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}

// Chown changes nothing.
func (k *Kernel) Chown(path string, uid, gid int) error {
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	return k.do("chown %s %d:%d", filepath.Base(path), uid, gid)
}
