// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// buildPlain returns the overlay as a detached mount without any mapping, made
// from its layers by their paths, so that mountinfo shows these. Relative ones
// start from dir.
func (o Overlay) buildPlain(source, dir string) (m *os.File, err error) {
	if err := o.forgetVolatile(dir); err != nil {
		return nil, fmt.Errorf("build plain overlay: %w", err)
	}
	var flags uintptr
	if o.ReadOnly {
		flags = unix.MS_RDONLY
	}
	data := strings.Join(o.superOptions(), ",")
	err = mount.InPrivate(func() error {
		if dir != "" {
			if err := unix.Chdir(dir); err != nil {
				return &os.PathError{Op: "chdir", Path: dir, Err: err}
			}
		}
		// Nobody else sees what is mounted here.
		place := o.relative(dir).Lower[0]
		if err := eintr.Do(func() error { return unix.Mount(source, place, "overlay", flags, data) }); err != nil {
			return fmt.Errorf("mount overlay with %q: %w (the kernel log tells more)", data, os.NewSyscallError("mount", err))
		}
		m, err = mount.TakeOut(place, "overlay", o.cloneOptions())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("build plain overlay: %w", err)
	}
	return m, nil
}

// BuildAgain is Build for the layers of an overlay that is mounted and about to
// be replaced. source is what it is called in mountinfo.
func (o Overlay) BuildAgain(userns *os.File, root idmap.Owner, method Method, source string) (*os.File, error) {
	if err := o.forgetVolatile(""); err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	o.Source = source
	return o.Build(userns, root, method)
}

// forgetVolatile removes the mark by which the kernel refuses an overlay that was
// mounted volatile before: after a crash it may lack data. Here there was none,
// and what is not on disk yet is in the page cache of the layers.
func (o Overlay) forgetVolatile(dir string) error {
	if !o.volatile() || o.Work == "" {
		return nil
	}
	base := filepath.Join(o.relative(dir).Work, "work")
	for _, mark := range []string{"incompat/volatile/dirty", "incompat/volatile", "incompat"} {
		if err := os.Remove(filepath.Join(base, mark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the mark of a volatile overlay: %w", err)
		}
	}
	return nil
}
