// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/spec"
)

// Snapshot is the directory with the files that belong to one rootfs alone.
type Snapshot struct {
	Dir   string   // its directory: an overlay's upper layer, or the rootfs itself
	Lower []string // the layers below it, which others may use too
}

// Snapshot finds the directory whose files may be changed. A shared directory may
// not: every container of the image would see the chown of a layer.
func (s *Source) Snapshot() (Snapshot, error) {
	fail := func(why string) (Snapshot, error) {
		return Snapshot{}, fmt.Errorf("ids of the rootfs cannot be moved on disk: %s: %w", why, spec.ErrRefused)
	}
	o, err := s.overlay, s.overlayErr
	switch s.Kind {
	case OverlayMount:
	case Directory:
		s.detect()
		if s.detectErr != nil {
			return Snapshot{}, fmt.Errorf("rootfs: %w", s.detectErr)
		}
		if s.premounted == nil {
			return Snapshot{Dir: s.Dir}, nil
		}
		o, err = s.premounted.Overlay.relative(s.premounted.Dir), nil
		if o.Upper != "" && !isDir(o.Upper) {
			// mountinfo shows layers as they were given, which may be relative to
			// a directory that nobody knows any more. The mount point lasts too.
			return Snapshot{Dir: s.Dir}, nil
		}
	case Bind:
		if slices.Contains(s.Options(), "ro") {
			return fail("it is a read-only view of a layer")
		}
		return Snapshot{Dir: s.Dir}, nil
	case Stack:
		return fail("it is neither an overlay nor a directory but " + s.Mounts[len(s.Mounts)-1].Type)
	}
	switch {
	case err != nil:
		return Snapshot{}, fmt.Errorf("rootfs: %w", err)
	case o.Upper == "" || o.ReadOnly:
		return fail("it is an overlay without a layer to write to")
	}
	return Snapshot{Dir: o.Upper, Lower: append(slices.Clone(o.Lower), o.DataLower...)}, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() && filepath.IsAbs(path)
}
