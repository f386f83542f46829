// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// provenMethod is the method MethodAuto found to work. It does not change while
// a kernel runs.
var provenMethod atomic.Uint32

// Build returns the overlay as a finished detached mount whose lower, upper and
// work directories are mapped by userns, or plain ones if that is nil. root must
// be the host ids of the container's root; the overlay acts on its layers as
// them, which makes what it creates owned by 0:0 on disk. Attach it with
// [mount.Attach], and close the file before the mount shall be unmounted.
//
// Errors: [mount.NotIDMappableError] if a layer's file system takes no mapping,
// [UnbuildableError] if the kernel takes no such layers for an overlay, and one
// that matches [ErrReadOnly] if it would not be writable.
func (o Overlay) Build(userns *os.File, root idmap.Owner, method Method) (*os.File, error) {
	if o.Adopted != nil {
		return nil, errors.New("build overlay: uidmap and gidmap options ask for a mapping of their own")
	}
	if o.Upper == "" && len(o.Lower) == 1 && len(o.DataLower) == 0 {
		// The kernel refuses an overlay of one layer (EINVAL).
		return o.single(userns)
	}
	l, err := openLayers(o, userns)
	if err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	defer l.close()
	m, err := o.build(l, root, method)
	if err != nil && refused(err) {
		err = cmp.Or(o.incompatible(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	return m, nil
}

// single returns the only layer of a read-only overlay as a read-only clone.
func (o Overlay) single(userns *os.File) (*os.File, error) {
	opts := o.cloneOptions()
	opts.Userns = userns
	opts.SetAttrs |= attrRdonly
	opts.Propagation = unix.MS_PRIVATE
	return mount.CloneTree(-1, o.Lower[0], opts)
}

// cloneOptions are the mount attributes as mount_setattr(2) wants them: a new
// access time mode only together with the removal of the old one.
func (o Overlay) cloneOptions() mount.CloneOptions {
	opts := mount.CloneOptions{SetAttrs: o.mountAttrs()}
	if opts.SetAttrs&attrAtimeMask != 0 {
		opts.ClearAttrs = attrAtimeMask
	}
	return opts
}

func (o Overlay) build(l *layers, root idmap.Owner, method Method) (*os.File, error) {
	if method != MethodAuto {
		return o.buildBy(method, l, root)
	}
	if proven := Method(provenMethod.Load()); proven != MethodAuto {
		return o.buildBy(proven, l, root)
	}
	var attempts []Attempt
	for _, method := range []Method{MethodDetached, MethodPrivate} {
		m, err := o.buildBy(method, l, root)
		if err == nil {
			provenMethod.Store(uint32(method))
			return m, nil
		}
		if !refused(err) {
			return nil, err
		}
		attempts = append(attempts, Attempt{Method: method, Err: err})
	}
	path := o.Lower[0]
	if o.Upper != "" {
		path = o.Upper
	}
	return nil, &UnbuildableError{Kernel: feature.Release(), FSType: mount.TypeAt(path), Path: path, Attempts: attempts}
}

func (o Overlay) buildBy(method Method, l *layers, root idmap.Owner) (m *os.File, err error) {
	switch method {
	case MethodDetached:
		m, err = o.buildDetached(l, root)
	case MethodPrivate:
		m, err = o.buildPrivate(l, root)
	default:
		return nil, fmt.Errorf("unknown method %s", method)
	}
	runtime.KeepAlive(l)
	if err != nil {
		return nil, err
	}
	if err := o.checkWritable(m, l, root); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// refused tells that the kernel does not do it this way, as opposed to
// something being wrong with the layers. Which of them it is differs between
// Linux 5.12 and 6.14.
func refused(err error) bool {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.EOPNOTSUPP, unix.EBADF, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// incompatible tells why the kernel refuses a work directory whatever the mapping
// is: a former mount has marked it (ovl_workdir_create in fs/overlayfs/super.c).
func (o Overlay) incompatible() error {
	if o.Work == "" {
		return nil
	}
	marks := filepath.Join(o.Work, "work/incompat")
	entries, err := os.ReadDir(marks)
	switch {
	case err != nil || len(entries) == 0:
		return nil //nolint:nilerr // usually there is none
	case entries[0].Name() == "volatile":
		return fmt.Errorf("the kernel mounts no layer again that was mounted with the option volatile, since data may be lost after a crash: remove %q if the machine has not crashed since, or make the container anew, and take volatile out of the snapshotter's mount options", marks)
	}
	return fmt.Errorf("the kernel does not mount a layer that was used with the feature %q, as %q says", entries[0].Name(), marks)
}

// checkWritable catches the overlay that the kernel made read-only on the quiet.
func (o Overlay) checkWritable(m *os.File, l *layers, root idmap.Owner) error {
	if o.Upper == "" || o.ReadOnly {
		return nil
	}
	var st unix.Statfs_t
	if err := eintr.Do(func() error { return unix.Fstatfs(int(m.Fd()), &st) }); err != nil {
		return fmt.Errorf("stat overlay: %w", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrReadOnly, o.whyReadOnly(l, root))
}

// whyReadOnly finds the reason by doing what the kernel tried: make a directory
// in the work directory as the owner. The kernel reports it in its log only
// ("failed to create directory ... mounting read-only").
func (o Overlay) whyReadOnly(l *layers, root idmap.Owner) string {
	name := "isolate." + strconv.Itoa(unix.Gettid())
	err := thread.Run(func() error {
		if err := thread.SetFSIDs(uint32(root.UID), uint32(root.GID)); err != nil {
			return err
		}
		if err := unix.Mkdirat(int(l.work.dir.Fd()), name, 0o700); err != nil {
			return err
		}
		return unix.Unlinkat(int(l.work.dir.Fd()), name, unix.AT_REMOVEDIR)
	})
	work := filepath.Clean(o.Work)
	switch {
	case errors.Is(err, unix.EOVERFLOW):
		return fmt.Sprintf("host ids %d:%d cannot create in workdir %q, the mapping does not contain them", root.UID, root.GID, work)
	case err != nil:
		return fmt.Sprintf("creating in workdir %q: %v", work, err)
	}
	return fmt.Sprintf("the kernel log tells why (overlayfs: ... mounting read-only), workdir %q itself is writable", work)
}
