// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// Shelf makes inner stores of a container that runs. It looks at the container's rootfs
// and upper layer from the host, where nothing shows that the container has mounted.
type Shelf struct {
	Kernel Kernel
	Rootfs string // where the overlay is mounted on the host
	Upper  string // its upper layer
	Owner  idmap.Owner
}

// StorePaths are the stores that are known.
func StorePaths() []string {
	var paths []string
	for _, st := range stores {
		paths = append(paths, st.path)
	}
	return paths
}

// Keeps tells whether a program of that name keeps something in a store.
func Keeps(program, storePath string) bool {
	return slices.ContainsFunc(stores, func(st store) bool { return st.path == storePath && slices.Contains(st.programs, program) })
}

// Has tells whether a program that uses a store is there.
func (s Shelf) Has(storePath string) (bool, error) {
	root, err := openRoot(s.Rootfs)
	if err != nil {
		return false, err
	}
	programs := &Programs{root: root}
	defer programs.Close() //nolint:errcheck // O_PATH
	for _, st := range stores {
		if st.path == storePath {
			return programs.Any(st.programs...)
		}
	}
	return false, nil
}

// Make makes a store and returns it as a detached mount, with the ids that a user
// namespace maps; nil if the ids on disk are the container's. See [Stage.Stores].
func (s Shelf) Make(storePath string, userns *os.File) (*os.File, error) {
	root, err := openRoot(s.Rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	layer, err := openRoot(s.Upper)
	if err != nil {
		return nil, err
	}
	defer layer.Close()
	if err := prepareStoreAs(s.Owner, root, layer, storePath); err != nil {
		return nil, err
	}
	return cloneStore(s.Kernel, layer, storePath, userns)
}

// ErrMerged says that the image has a part in a directory, which would have to be copied.
var ErrMerged = errors.New("the image has it too")

// Clone is Make for a directory that is there and known to no program: it has to be the
// container's alone, so that nothing is copied or marked.
func (s Shelf) Clone(dir string, userns *os.File) (*os.File, error) {
	layer, err := openRoot(s.Upper)
	if err != nil {
		return nil, err
	}
	defer layer.Close()
	upper, err := openIn(layer, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMerged
	}
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	if own, err := isOwn(upper); err != nil {
		return nil, err
	} else if !own {
		return nil, ErrMerged
	}
	return cloneStore(s.Kernel, layer, dir, userns)
}

// WithProgramDirs calls fn with paths of the directories in which programs are looked
// for, as far as they are there.
func (s Shelf) WithProgramDirs(fn func(paths []string) error) error {
	root, err := openRoot(s.Rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	var paths []string
	for _, name := range programDirs {
		dir, err := openFollowing(root, name+"/.")
		if err != nil {
			return fmt.Errorf("look for programs: %w", err)
		}
		if dir != nil {
			defer dir.Close()
			paths = append(paths, "/proc/self/fd/"+strconv.Itoa(int(dir.Fd())))
		}
	}
	return fn(paths)
}
