// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	linuxmount "github.com/isolate-shim/isolate/internal/linux/mount"
)

// fsType is the type of the superblock, in mountinfo.
const fsType = "fuse.lxcfs"

// Device is the major and minor number of a superblock.
type Device [2]int

// mount is a mounted lxcfs.
type mount struct {
	ID     int
	Device Device
	Root   string // mount point
}

func (m mount) origin() Origin { return Origin{Root: m.Root, Device: m.Device} }

// choose returns the lxcfs mounts to try. The newest one is the best; older ones
// follow, because a mount may outlive its server. Each superblock is tried once. A
// mount that shows only a part of a superblock (a file that is bound into a container)
// does not tell what else there is, and is left out.
//
// With a path, there must be an lxcfs on that path.
func choose(mounts []*mountinfo.Info, path string) ([]mount, error) {
	if path != "" {
		path = filepath.Clean(path)
	}
	var found []mount
	seen := map[Device]bool{}
	for i := len(mounts) - 1; i >= 0; i-- {
		m := mounts[i]
		if m.FSType != fsType || m.Root != "/" || path != "" && m.Mountpoint != path {
			continue
		}
		// The directory below the mount was removed.
		if strings.HasSuffix(m.Mountpoint, "//deleted") {
			continue
		}
		if device := (Device{m.Major, m.Minor}); !seen[device] {
			seen[device] = true
			found = append(found, mount{ID: m.ID, Device: device, Root: m.Mountpoint})
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case path != "":
		return nil, absent(fmt.Sprintf("nothing of type %s is mounted on %q (lxcfs.path)", fsType, path))
	}
	return nil, absent("nothing of type " + fsType + " is mounted in this mount namespace")
}

// MountedFile is a file of lxcfs that is mounted in a container.
type MountedFile struct {
	// Name is its place relative to the container's root, as in [File].
	Name string
	// ID numbers the mount, as in mountinfo.
	ID     int
	Device Device
}

// maxMountedFiles bounds how many files of lxcfs are found in one mount namespace: a
// container can bind one any number of times.
const maxMountedFiles = 4096

// tableTime is how long a mountinfo is read, unless it is short.
const tableTime = time.Second

// MountedFiles finds the files of lxcfs in the mountinfo of a container's process.
// Files that are stacked on one place come from the lowest to the topmost. Of more
// than 4,096 files only the first are found. With [linuxmount.ErrSlowTable] come those
// that were found until then: files that a container got when it was made are at the beginning.
func MountedFiles(r io.Reader) ([]MountedFile, error) {
	lines, err := lxcfsLines(&linuxmount.Table{Mountinfo: r, Until: time.Now().Add(tableTime)})
	if err != nil && !errors.Is(err, linuxmount.ErrSlowTable) {
		return nil, fmt.Errorf("find files of lxcfs: %w", err)
	}
	infos, parseErr := mountinfo.GetMountsFromReader(bytes.NewReader(lines), mountinfo.FSTypeFilter(fsType))
	if parseErr != nil {
		return nil, fmt.Errorf("find files of lxcfs: %w", parseErr)
	}
	var found []MountedFile
	for _, m := range infos {
		name := strings.TrimPrefix(m.Mountpoint, "/")
		// A file that the container has bound elsewhere is left alone.
		// The kernel calls a file deleted that somebody has looked up in vain on the host
		// since its server died.
		if servable(name) && strings.TrimSuffix(m.Root, "//deleted") == m.Mountpoint {
			found = append(found, MountedFile{Name: name, ID: m.ID, Device: Device{m.Major, m.Minor}})
		}
	}
	return found, err
}

// lxcfsLines returns the lines of lxcfs in a mountinfo. A container may have 100,000
// mounts, so the other lines are neither kept nor parsed. With an error come
// those that were found until then.
func lxcfsLines(r io.Reader) ([]byte, error) {
	mark := []byte(" - " + fsType + " ") // blanks in a path are written as \040
	lines := bufio.NewReaderSize(r, 64<<10)
	var out []byte
	for n := 0; n < maxMountedFiles; {
		line, err := lines.ReadSlice('\n')
		whole := err == nil || errors.Is(err, io.EOF)
		for errors.Is(err, bufio.ErrBufferFull) { // longer than two paths: none of lxcfs
			_, err = lines.ReadSlice('\n')
		}
		if whole && bytes.Contains(line, mark) {
			out = append(out, line...)
			n++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}
