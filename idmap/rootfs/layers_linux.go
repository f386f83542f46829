// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// layer is one directory of an overlay, on an id-mapped clone.
type layer struct {
	tree int      // index into layers.trees
	rel  string   // below the root of that tree, "." for the root itself
	dir  *os.File // O_PATH
}

// layers are all directories of an overlay, seen through detached clones.
type layers struct {
	trees       []*os.File
	lower, data []layer
	upper, work *layer
}

// openLayers clones what the layers are on and gives the clones the mapping:
// the lower layers read-only, upper and work through one writable clone of
// their common parent, because the kernel wants them on the same mount.
//
// Lower layers too are taken from one clone of their common parent: that is
// twice as fast at 60 layers as a clone for each. Where it does not hold them
// all (a layer may be a mount point of its own, such as erofs or a lazily
// pulled one), each is cloned alone.
func openLayers(o Overlay, userns *os.File) (_ *layers, retErr error) {
	l := &layers{}
	defer func() {
		if retErr != nil {
			l.close()
		}
	}()
	if o.Upper != "" {
		if err := l.openUpper(o, userns); err != nil {
			return nil, err
		}
	}
	paths := append(append([]string(nil), o.Lower...), o.DataLower...)
	found, err := l.openTogether(paths, userns)
	if err != nil {
		found, err = l.openEach(paths, userns)
	}
	if err != nil {
		return nil, err
	}
	l.lower, l.data = found[:len(o.Lower)], found[len(o.Lower):]
	return l, nil
}

func (l *layers) openUpper(o Overlay, userns *os.File) error {
	upper, err := filepath.EvalSymlinks(o.Upper)
	if err != nil {
		return fmt.Errorf("find upperdir: %w", err)
	}
	work, err := filepath.EvalSymlinks(o.Work)
	if err != nil {
		return fmt.Errorf("find workdir: %w", err)
	}
	found, err := l.openBelow(commonDir([]string{upper, work}), []string{upper, work}, userns, 0)
	if err != nil {
		return fmt.Errorf("open upperdir %q and workdir %q: %w", o.Upper, o.Work, err)
	}
	l.upper, l.work = &found[0], &found[1]
	return nil
}

func (l *layers) openTogether(paths []string, userns *os.File) ([]layer, error) {
	common := commonDir(paths)
	if len(paths) < 2 || common == "" || common == "/" {
		return nil, errors.New("layers have no common parent")
	}
	return l.openBelow(common, paths, userns, unix.MOUNT_ATTR_RDONLY)
}

// openBelow clones the mount at dir and opens the paths below it, each of which
// must be the same directory as the path leads to without the clone.
func (l *layers) openBelow(dir string, paths []string, userns *os.File, attrs uint64) (_ []layer, retErr error) {
	tree, err := mount.CloneTree(-1, dir, mount.CloneOptions{Userns: userns, SetAttrs: attrs, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return nil, err
	}
	found := make([]layer, 0, len(paths))
	defer func() {
		if retErr != nil {
			closeAll(found)
			retErr = errors.Join(retErr, tree.Close())
		}
	}()
	for _, path := range paths {
		// Not even a link may lead out of the clone: there is the same tree
		// without the mapping.
		rel := strings.TrimPrefix(strings.TrimPrefix(filepath.Clean(path), dir), "/")
		if rel == "" {
			rel = "."
		}
		d, err := openat.Open(tree, rel, unix.O_PATH|unix.O_DIRECTORY, openat.Beneath)
		if err != nil {
			return nil, err
		}
		found = append(found, layer{tree: len(l.trees), rel: rel, dir: d})
		if err := sameDirectory(d, path); err != nil {
			return nil, err
		}
	}
	l.trees = append(l.trees, tree)
	return found, nil
}

func (l *layers) openEach(paths []string, userns *os.File) (_ []layer, retErr error) {
	var found []layer
	defer func() {
		if retErr != nil {
			closeAll(found)
		}
	}()
	for _, path := range paths {
		tree, err := mount.CloneTree(-1, path, mount.CloneOptions{
			Userns: userns, SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE,
		})
		if err != nil {
			return nil, fmt.Errorf("open lowerdir: %w", err)
		}
		l.trees = append(l.trees, tree)
		d, err := openat.Open(tree, ".", unix.O_PATH|unix.O_DIRECTORY, openat.Beneath)
		if err != nil {
			return nil, fmt.Errorf("open lowerdir %q: %w", path, err)
		}
		found = append(found, layer{tree: len(l.trees) - 1, rel: ".", dir: d})
	}
	return found, nil
}

// close drops all clones; an overlay made from them keeps its own.
func (l *layers) close() {
	closeAll(l.lower)
	closeAll(l.data)
	for _, one := range []*layer{l.upper, l.work} {
		if one != nil {
			closeAll([]layer{*one})
		}
	}
	for _, t := range l.trees {
		t.Close()
	}
}

func closeAll(all []layer) {
	for _, one := range all {
		one.dir.Close()
	}
}

// commonDir returns the deepest directory that holds all paths (or is one of
// them), "" if a path is relative.
func commonDir(paths []string) string {
	var common string
	for i, p := range paths {
		if !filepath.IsAbs(p) {
			return ""
		}
		p = filepath.Clean(p)
		if i == 0 {
			common = filepath.Dir(p)
			continue
		}
		for common != "/" && p != common && !strings.HasPrefix(p, common+"/") {
			common = filepath.Dir(common)
		}
	}
	return common
}

// sameDirectory makes sure that a directory on a clone is the one its path leads
// to: something may be mounted there, which a clone of the parent lacks.
func sameDirectory(dir *os.File, path string) error {
	var got, want unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &got); err != nil {
		return &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if err := unix.Stat(path, &want); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if got.Dev != want.Dev || got.Ino != want.Ino {
		return fmt.Errorf("%q is a mount point of its own", path)
	}
	return nil
}
