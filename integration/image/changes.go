// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive"
	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// trace is what changes of a file whenever anything about it does: the kernel
// sets the change time on any change of content, owner, mode, links or
// attributes, and nobody else can set it.
type trace struct {
	inode  uint64
	change unix.Timespec
}

// tree maps absolute paths inside a root to their traces.
type tree map[string]trace

// unwritten are directories whose content is not part of any image.
var unwritten = map[string]bool{"/dev": true, "/proc": true, "/sys": true}

func look(root string) (tree, error) {
	t := tree{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := path[len(root):]
		if name == "" {
			return nil
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return fmt.Errorf("lstat %q: %w", path, err)
		}
		t[name] = trace{inode: stat.Ino, change: stat.Ctim}
		if unwritten[name] {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at root: %w", err)
	}
	return t, nil
}

// writeChanges writes a layer of what has changed in a root.
func writeChanges(stream io.Writer, root string, before tree) error {
	after, err := look(root)
	if err != nil {
		return err
	}
	writer := archive.NewChangeWriter(stream, root)
	all := maps.Clone(before)
	maps.Copy(all, after)
	deleted := ""
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, wasThere := before[name]
		is, isThere := after[name]
		if !isThere {
			// One whiteout does for a directory and all in it.
			if deleted != "" && len(name) > len(deleted) && name[:len(deleted)+1] == deleted+"/" {
				continue
			}
			deleted = name
			if err := writer.HandleChange(continuity.ChangeKindDelete, name, nil, nil); err != nil {
				return fmt.Errorf("write whiteout of %q: %w", name, err)
			}
			continue
		}
		var kind continuity.ChangeKind = continuity.ChangeKindAdd
		switch {
		case wasThere && was == is:
			// Told all the same, for its hard links.
			kind = continuity.ChangeKindUnmodified
		case wasThere:
			kind = continuity.ChangeKindModify
		}
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			return fmt.Errorf("lstat %q: %w", name, err)
		}
		if err := writer.HandleChange(kind, name, info, nil); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
	}
	return writer.Close()
}

// writeMany writes a layer of small files of several owners.
func writeMany(stream io.Writer, files int) error {
	writer := tar.NewWriter(stream)
	write := func(h *tar.Header, text string) error {
		h.ModTime, h.Size = time.Unix(0, 0), int64(len(text))
		if err := writer.WriteHeader(h); err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		if _, err := writer.Write([]byte(text)); err != nil {
			return fmt.Errorf("write layer: %w", err)
		}
		return nil
	}
	for i := range files {
		dir := fmt.Sprintf("srv/many/%d", i/100)
		if i%100 == 0 {
			if err := write(&tar.Header{Name: dir, Mode: 0o755, Typeflag: tar.TypeDir}, ""); err != nil {
				return err
			}
		}
		if err := write(&tar.Header{Name: fmt.Sprintf("%s/%d", dir, i), Mode: 0o644, Uid: i % 1000, Gid: i % 1000}, dir); err != nil {
			return err
		}
	}
	return writer.Close()
}

// writeTiny writes a layer of one file that holds its own name.
func writeTiny(stream io.Writer, name string) error {
	writer := tar.NewWriter(stream)
	err := writer.WriteHeader(&tar.Header{Name: name[1:], Mode: 0o644, Size: int64(len(name)), ModTime: time.Unix(0, 0)})
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	if _, err := writer.Write([]byte(name)); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return writer.Close()
}
