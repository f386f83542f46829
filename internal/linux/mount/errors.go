// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"

	"github.com/isolate-shim/isolate/internal/linux/feature"
)

var (
	// ErrNotIDMappable means that the file system, or with a recursive clone
	// one below it, cannot be mounted with an id mapping on this kernel.
	ErrNotIDMappable = errors.New("file system cannot be id-mapped")

	// ErrDetached means that somebody else has unmounted a mount in between.
	ErrDetached = errors.New("not mounted any more")

	// ErrMounted means that a path inside a container already is a mount point
	// and the caller did not ask to replace what is there.
	ErrMounted = errors.New("something is mounted there already")

	// ErrNotThere means that a mount inside a container is not, or not any more,
	// on top of the path where it was seen.
	ErrNotThere = errors.New("another mount is there now")

	// ErrDeleted means that a file that was to be mounted has no name any more: it was
	// removed, or its server has died and the kernel has noticed.
	ErrDeleted = errors.New("the file was deleted")

	// ErrWrongFileSystem means that a path inside a container is not on the
	// kind of file system the caller expects.
	ErrWrongFileSystem = errors.New("unexpected file system")
)

// mappableSince tells which Linux was the first to id-map a file system
// (mount_setattr(2), "ID-mapped mounts").
var mappableSince = map[string]string{
	"ext2": "5.12", "ext3": "5.12", "ext4": "5.12", "vfat": "5.12", "xfs": "5.12", "btrfs": "5.15", "ntfs3": "5.15", "f2fs": "5.18",
	"erofs": "5.19", "squashfs": "6.2", "tmpfs": "6.3", "ceph": "6.7", "hugetlbfs": "6.9",
}

// NotIDMappableError names the mount that has no id mapping. It matches
// [ErrNotIDMappable].
type NotIDMappableError struct {
	Path   string // what was to be cloned
	FSType string // as in mountinfo, "" if unknown
	Kernel string // release of the running kernel
}

// Error names object, file system and kernel.
func (e *NotIDMappableError) Error() string {
	fs := e.FSType
	if fs == "" {
		fs = "this file system or one mounted below it"
	}
	return fmt.Sprintf("id-map %q: %s cannot be id-mapped by kernel %s%s", e.Path, fs, e.Kernel, feature.Needs(e.Kernel, mappableSince[e.FSType]))
}

// Is matches [ErrNotIDMappable].
func (e *NotIDMappableError) Is(target error) bool { return target == ErrNotIDMappable }
