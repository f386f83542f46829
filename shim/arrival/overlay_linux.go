// SPDX-License-Identifier: Apache-2.0

package arrival

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/openat"
	"github.com/isolate-shim/isolate/shim/notify"
	"github.com/isolate-shim/isolate/shim/stage"
)

// Shelve makes a store of where a thread is about to mount an overlay, if its upper layer
// is on the container's rootfs, where the kernel would refuse it. It is a [notify.Shelve].
//
// The directories have to be on the very mount that is the thread's root: nothing that the
// container has mounted is asked. Whatever it changes meanwhile is its own.
func (c Container) Shelve(o notify.Overlay) error {
	root, err := c.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if same, err := mount.SameFile(o.Root, root); err != nil || !same {
		return err
	}
	upper, work := onRootfs(o, o.Upper), onRootfs(o, o.Work)
	if upper == "" || work == "" {
		return nil
	}
	for _, dir := range places(upper, work) {
		m, err := c.mapped(func(userns *os.File) (*os.File, error) {
			if slices.Contains(c.Stores, dir) {
				return c.Shelf.Make(dir, userns)
			}
			return c.Shelf.Clone(dir, userns)
		})
		if errors.Is(err, stage.ErrMerged) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make a store of %q: %w", dir, err)
		}
		defer m.Close()
		return mount.InMounts(o.Mounts, o.Root, func(in *mount.Inside) error { return in.AttachToRoot(m, root, dir) })
	}
	return fmt.Errorf("its upper layer %q is on the container's own overlay, in a directory of the image: use a new directory, or a volume", upper)
}

// onRootfs returns the path of a directory from the thread's root, or "" if it is on
// another mount than that.
func onRootfs(o notify.Overlay, name string) string {
	base, resolve := o.Root, uint64(openat.InRoot)
	if !path.IsAbs(name) {
		base, resolve = o.Cwd, openat.Beneath
		if here, err := mount.ID(o.Cwd); err != nil {
			return ""
		} else if there, err := mount.ID(o.Root); err != nil || here != there {
			return ""
		}
	}
	dir, err := openat.Open(base, name, unix.O_PATH|unix.O_DIRECTORY, resolve|openat.SameMount)
	if err != nil {
		return ""
	}
	defer dir.Close()
	found, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return ""
	}
	again, err := openat.Open(o.Root, found, unix.O_PATH|unix.O_DIRECTORY, openat.InRoot|openat.NoLinks|openat.SameMount)
	if err != nil {
		return ""
	}
	defer again.Close()
	if same, err := mount.SameFile(dir, again); err != nil || !same {
		return ""
	}
	return found
}

// places lists the directories, the better first, that may become a store for an overlay:
// the known one, or else the one in which such overlays have theirs, or that of this one.
// Programs try whether they can mount one in a directory of their store.
func places(upper, work string) []string {
	for _, known := range stage.StorePaths() {
		if below(upper, known) && below(work, known) {
			return []string{known}
		}
	}
	common := path.Dir(upper)
	for common != "/" && !below(work, common) {
		common = path.Dir(common)
	}
	return slices.DeleteFunc([]string{path.Dir(common), common}, func(dir string) bool { return dir == "/" })
}

func below(name, dir string) bool { return strings.HasPrefix(name, dir+"/") }
