// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// What an image may have in an inner store, so that the shim needs bounded memory
// and time. The largest image known to have a filled one is kindest/node, with
// some ten thousands of files.
const (
	maxCopied = 1 << 20 // names
	maxDepth  = 128     // directories below each other; each is open meanwhile
	perRead   = 128     // names that are read at once
)

var errTooMuch = fmt.Errorf("the image has more than %d files there, or directories more than %d deep", maxCopied, maxDepth)

// copier counts what may be copied yet.
type copier struct{ left int }

// copyUp brings everything below a directory of an overlay into its upper layer
// by touching it: opening for writing copies up a regular file and changes
// nothing, and a chown to nobody new does so for the rest. (A chown of a regular
// file would strip its set-user-id bit and file capabilities.)
//
// upper is the same directory in the upper layer. What the container has made
// itself is there already, and may be of any size: it is not looked at.
func (c *copier) copyUp(merged, upper *os.File, depth int) error {
	if own, err := isOwn(upper); own || err != nil {
		return err
	}
	if depth > maxDepth {
		return errTooMuch
	}
	for {
		entries, err := merged.ReadDir(perRead)
		for _, e := range entries {
			if err := c.copyEntry(merged, upper, e, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", merged.Name(), err)
		}
	}
}

func (c *copier) copyEntry(merged, upper *os.File, e os.DirEntry, depth int) error {
	if c.left--; c.left < 0 {
		return errTooMuch
	}
	if e.Type().IsRegular() {
		f, err := openIn(merged, e.Name(), unix.O_WRONLY)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return fmt.Errorf("copy up %q: %w", e.Name(), err)
		}
		return nil
	}
	if err := unix.Fchownat(int(merged.Fd()), e.Name(), -1, -1, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("copy up %q: %w", e.Name(), err)
	}
	if !e.IsDir() {
		return nil
	}
	above, err := openIn(upper, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer above.Close()
	below, err := openIn(merged, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer below.Close()
	return c.copyUp(below, above, depth+1)
}

// originAttrs mark what was copied up, and so every directory of the upper layer
// that is merged with one of the image (ovl_set_origin in fs/overlayfs/copy_up.c),
// for overlays mounted without and with userxattr.
var originAttrs = []string{"trusted.overlay.origin", "user.overlay.origin"}

// isOwn tells whether a directory of the upper layer is the container's alone.
func isOwn(upper *os.File) (bool, error) {
	for i, attr := range originAttrs {
		_, err := unix.Fgetxattr(int(upper.Fd()), attr, nil)
		switch {
		case errors.Is(err, unix.ENODATA):
		case errors.Is(err, unix.EOPNOTSUPP) && i > 0: // tmpfs before Linux 6.6
		case err == nil, errors.Is(err, unix.EOPNOTSUPP):
			return false, nil
		default:
			return false, fmt.Errorf("attribute %s of %q: %w", attr, upper.Name(), err)
		}
	}
	return true, nil
}
