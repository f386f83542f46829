// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"slices"

	"github.com/containerd/containerd/api/types"
)

// Kind is how a request names the rootfs of a container.
type Kind uint8

const (
	// Stack is a chain of mounts, or a file system of its own (erofs, ext4 image).
	Stack Kind = iota
	// OverlayMount is one overlay.
	OverlayMount
	// Bind is a bind mount of a directory.
	Bind
	// Directory is a directory and no mount. The caller may have mounted something
	// there: see [Source.Premounted].
	Directory
)

// Source is the rootfs that a request names, parsed once.
type Source struct {
	Kind Kind
	// Mounts are those that the caller wants to be made; none for a Directory.
	Mounts []*types.Mount
	// Dir is the directory of a Directory or a Bind, "" for the others.
	Dir string

	overlay    Overlay
	overlayErr error // why the options of an OverlayMount make no sense
	adopted    bool

	premounted *Premounted // of a Directory, once it was looked for
	detectErr  error
}

// Parse reads what a request names: mounts, or dir if there are none. What is wrong
// with them is told by the methods that need it to be right: a caller that maps by
// itself may use options that only the kernel knows.
func Parse(mounts []*types.Mount, dir string) *Source {
	s := &Source{Mounts: mounts}
	for _, m := range mounts {
		s.overlay, s.overlayErr = parseOverlay(m.Options)
		s.adopted = s.adopted || s.overlayErr == nil && s.overlay.Adopted != nil
	}
	switch {
	case len(mounts) == 0:
		s.Kind, s.Dir = Directory, dir
	case len(mounts) == 1 && mounts[0].Type == "overlay":
		s.Kind = OverlayMount
	case len(mounts) == 1 && isBind(mounts[0]):
		s.Kind, s.Dir = Bind, mounts[0].Source
	}
	return s
}

func isBind(m *types.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// Adopted tells whether the mounts come with id mappings of their own, as
// containerd's snapshotters add them for a client that mapped.
func (s *Source) Adopted() bool { return s.adopted }

// Overlay is the overlay of an OverlayMount.
func (s *Source) Overlay() (Overlay, error) { return s.overlay, s.overlayErr }

// Upper returns the upper layer of an OverlayMount, or "".
func (s *Source) Upper() string {
	if s.Kind != OverlayMount || s.overlayErr != nil {
		return ""
	}
	return s.overlay.Upper
}

// Options are the mount options of a Bind.
func (s *Source) Options() []string {
	if s.Kind != Bind {
		return nil
	}
	return s.Mounts[0].Options
}
