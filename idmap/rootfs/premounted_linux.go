// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// Premounted is an overlay that the caller has mounted for the container, as dockerd
// does with its storage drivers and with containerd's images.
//
// The kernel gives no mapping to a mounted overlay, and another overlay on the
// same upper layer must not be used beside it: each sees stale names of what the
// other has changed. So the container's own is built from the same layers and put
// in the place of the caller's. There it is the caller's to unmount; a container that
// has ended gets the plain one back, see [Replacement.Restore].
type Premounted struct {
	Path    string // where it is mounted
	Overlay Overlay
	Source  string // what it is called in mountinfo
	Dir     string // where relative layers start
	ID      int    // of the mount

	below string // what is mounted in it
	lost  error  // why its layers cannot be found
}

// detect looks at what is mounted at a Directory, the first time that it is called.
func (s *Source) detect() {
	if s.Kind == Directory && s.premounted == nil && s.detectErr == nil {
		s.premounted, s.detectErr = detect(s.Dir)
	}
}

// Premounted returns the overlay that is mounted at a Directory and that another one
// can replace; nil if there is none, or no mount at all: then there is nothing to be
// replaced.
func (s *Source) Premounted() (*Premounted, error) {
	s.detect()
	p := s.premounted
	if p == nil || s.detectErr != nil {
		return nil, s.detectErr
	}
	if p.below != "" {
		return nil, fmt.Errorf("rootfs %q is an overlay with a mount in it, %q, which would be lost when isolate mounts it anew with the container's ids; make that a mount of the container: %w",
			s.Dir, p.below, spec.ErrRefused)
	}
	if err := errors.Join(p.Overlay.replaceable(), p.lost); err != nil {
		return nil, fmt.Errorf("rootfs %q: %w: %w", s.Dir, err, spec.ErrRefused)
	}
	return p, nil
}

// detect describes the overlay that is mounted at a directory; nil if none is.
func detect(path string) (*Premounted, error) {
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
	overlay, err := parseMountedOverlay(mounted.Options, mounted.VFSOptions)
	if err != nil {
		return nil, fmt.Errorf("rootfs %q: %w", path, err)
	}
	p := &Premounted{Path: at, Overlay: overlay, Source: mounted.Source, ID: mounted.ID, below: mounted.Below}
	p.Dir, p.lost = overlay.base(at, isDir)
	return p, nil
}

// Upper is the upper layer, or "".
func (p *Premounted) Upper() string { return p.Overlay.relative(p.Dir).Upper }

// Layers is the overlay with the layers' own paths: those of dockerd are short
// symbolic links, and layers with a directory in common are cheaper to map. All of
// them are there: what the caller has mounted is not to go if it cannot be mounted
// again.
func (p *Premounted) Layers() (Overlay, error) {
	o := p.Overlay.relative(p.Dir)
	for _, dir := range []string{o.Upper, o.Work} {
		if dir != "" && !isDir(dir) {
			return o, fmt.Errorf("%w: there is no directory %q", ErrNoLayers, dir)
		}
	}
	for _, list := range [][]string{o.Lower, o.DataLower} {
		for i, layer := range list {
			at, err := filepath.EvalSymlinks(layer)
			if err != nil {
				return o, fmt.Errorf("%w: %w", ErrNoLayers, err)
			}
			list[i] = at
		}
	}
	return o, nil
}

// Replacement describes how to replace it.
func (p *Premounted) Replacement() *Replacement {
	return &Replacement{Path: p.Path, Source: newSource(), Was: p.Source, Dir: p.Dir, Options: p.Overlay.mountOptions()}
}

// newSource makes a name for a mount of ours.
func newSource() string { return "isolate-" + strings.ToLower(rand.Text()[:12]) }

// ErrReplaced says that the caller's mount is not there any more.
var ErrReplaced = errors.New("somebody else mounts or unmounts there at the same time")

// Clear takes the caller's mount away, and leaves a placeholder called source.
func (p *Premounted) Clear(source string) error {
	mounted, err := mount.At(p.Path)
	if err != nil {
		return err
	}
	if mounted.ID != p.ID {
		return errors.Join(ErrReplaced, mounted.Close())
	}
	return mounted.Clear(source)
}

// Fill puts a mount in the place of the placeholder that Clear has left.
func (p *Premounted) Fill(source string, built *os.File) error {
	placeholder, err := mount.At(p.Path)
	if err != nil {
		return err
	}
	defer placeholder.Close() //nolint:errcheck // O_PATH
	if placeholder.Source != source {
		return ErrReplaced
	}
	return placeholder.Replace(built)
}
