// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/lookup"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// sourceTimeout bounds how long the source of a volume may take to be found. A
// dead network or FUSE file system would otherwise hold the shim for ever.
const sourceTimeout = 20 * time.Second

// local are the file systems that ask nobody but a disk. An overlay asks those of
// its layers.
var local = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "zfs": true, "bcachefs": true, "vfat": true,
	"exfat": true, "ntfs3": true, "iso9660": true, "squashfs": true, "erofs": true, "tmpfs": true, "ramfs": true, "hugetlbfs": true,
	"proc": true, "sysfs": true, "cgroup": true, "cgroup2": true, "devtmpfs": true, "devpts": true, "mqueue": true, "nsfs": true,
}

// Sources opens directories and files of the host that callers name.
type Sources struct {
	types    map[int]string // of file systems, by the id of the mount
	overlays bool           // that overlays count as local
}

// Open opens a path of the host with O_PATH, and nothing of this process waits for
// a server. What comes back has shown a sign of life.
func (s *Sources) Open(ctx context.Context, path string) (*os.File, error) {
	f, err := lookup.Cached(path)
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", path, err)
	}
	if f != nil {
		ok, err := s.local(f)
		if ok && err == nil {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	f, err = lookup.Ask(ctx, path)
	if errors.Is(err, lookup.ErrNoAnswer) {
		return nil, fmt.Errorf("source %q: %s did not answer for %v, so restart its server or unmount it: %w", path, mountedAt(path), time.Since(began).Round(time.Second), err)
	}
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", path, err)
	}
	return f, nil
}

// mountedAt names the file system that a path seems to be on.
func mountedAt(path string) string {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil || len(mounts) == 0 {
		return "its file system"
	}
	m := slices.MaxFunc(mounts, func(a, b *mountinfo.Info) int { return cmp.Compare(len(a.Mountpoint), len(b.Mountpoint)) })
	return fmt.Sprintf("%s at %q", m.FSType, m.Mountpoint)
}

// explain adds to an error of [bounded] who may be in the way: the servers that have
// other mounts in what is theirs, since it is there that these are looked up.
func explain(err error, source *os.File) error {
	if !errors.Is(err, lookup.ErrNoAnswer) {
		return err
	}
	dir, linkErr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", source.Fd())) // asks nobody
	mounts, mountsErr := mountinfo.GetMounts(nil)
	list := holders(mounts, dir)
	if linkErr != nil || mountsErr != nil || len(list) == 0 {
		return err
	}
	return fmt.Errorf("%w; mounts in %s are looked up there, so restart its server or unmount it", err, strings.Join(list, " and in "))
}

// holders are the file systems at or below a directory that ask a server and have others
// mounted in them.
func holders(mounts []*mountinfo.Info, dir string) (list []string) {
	has := map[int]bool{}
	for _, m := range mounts {
		has[m.Parent] = true
	}
	for _, m := range mounts {
		below := m.Mountpoint == dir || strings.HasPrefix(m.Mountpoint, strings.TrimSuffix(dir, "/")+"/")
		if below && has[m.ID] && !local[m.FSType] && m.FSType != "overlay" {
			list = append(list, fmt.Sprintf("%s at %q", m.FSType, m.Mountpoint))
		}
	}
	return list
}

// Reachable makes sure that the rootfs can be looked at without waiting for ever,
// if it is a directory that the caller names. The layers of an overlay are its
// snapshotter's or dockerd's own.
func Reachable(ctx context.Context, source *rootfs.Source) error {
	if source.Dir == "" {
		return nil
	}
	s := Sources{overlays: true}
	f, err := s.Open(ctx, source.Dir)
	if err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	return f.Close()
}

// local tells whether a file is on a file system that asks nobody.
func (s *Sources) local(f *os.File) (bool, error) {
	if s.types == nil {
		mounts, err := mountinfo.GetMounts(nil)
		if err != nil {
			return false, err
		}
		s.types = make(map[int]string, len(mounts))
		for _, m := range mounts {
			s.types[m.ID] = m.FSType
		}
	}
	id, err := mount.ID(f)
	return local[s.types[id]] || s.overlays && s.types[id] == "overlay", err
}

// bounded does something with mounts that a dead file system could hold up. After
// the deadline the stuck thread is left behind, and the error names the path. It
// is for what asks no server by itself, but may come across one, such as an NFS
// that is mounted in a volume.
func bounded(ctx context.Context, path string, open func() (*os.File, error)) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		f, err := open()
		done <- result{f, err}
	}()
	select {
	case r := <-done:
		return r.f, r.err
	case <-ctx.Done():
		go func() { // close what comes too late
			if r := <-done; r.err == nil {
				r.f.Close()
			}
		}()
		return nil, fmt.Errorf("source %q: %w: %w", path, lookup.ErrNoAnswer, ctx.Err())
	}
}
