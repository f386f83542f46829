// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

func spanAt(first uint32) idmap.Span { return idmap.Span{First: idmap.HostID(first), Size: 65536} }

const (
	rangeA = 0x70000000
	rangeB = 0x70010000
)

// file is a file of the tree that tests work on.
type file struct {
	path  string
	mode  uint32
	uid   uint32
	gid   uint32
	text  string // or the target of a link
	attrs map[string]string
}

// files have one of everything that an id is part of.
var files = []file{
	{path: "dir", mode: unix.S_IFDIR | 0o755},
	{path: "dir/deep", mode: unix.S_IFDIR | 0o700, uid: 1000, gid: 1000},
	{path: "dir/deep/file", mode: unix.S_IFREG | 0o600, uid: 1000, gid: 33, text: "deep"},
	{path: "tmp", mode: unix.S_IFDIR | 0o1777},
	{path: "shared", mode: unix.S_IFDIR | 0o2775, gid: 33, attrs: map[string]string{xattrDefault: hexACL}},
	{path: "plain", mode: unix.S_IFREG | 0o644, text: "plain"},
	{path: "last", mode: unix.S_IFREG | 0o644, uid: 65535, gid: 65535, text: "last"},
	{path: "su", mode: unix.S_IFREG | 0o4755, text: "su"},
	{path: "wall", mode: unix.S_IFREG | 0o2755, gid: 5, text: "wall"},
	{path: "lock", mode: unix.S_IFREG | 0o2644, gid: 5, text: "mandatory lock"},
	{path: "both", mode: unix.S_IFREG | 0o6711, uid: 7, gid: 8, text: "both"},
	{path: "ping", mode: unix.S_IFREG | 0o755, text: "ping", attrs: map[string]string{xattrCapability: hexRaw}},
	{path: "everything", mode: unix.S_IFREG | 0o4750, uid: 7, text: "x", attrs: map[string]string{xattrCapability: hexRaw, xattrAccess: hexACL, "user.note": "6869"}},
	{path: "acl", mode: unix.S_IFREG | 0o640, uid: 1000, text: "acl", attrs: map[string]string{xattrAccess: hexACL}},
	{path: "noted", mode: unix.S_IFREG | 0o644, text: "noted", attrs: map[string]string{"user.note": "6869"}},
	{path: "link", mode: unix.S_IFLNK | 0o777, uid: 33, gid: 33, text: "/etc/passwd"},
	{path: "dangling", mode: unix.S_IFLNK | 0o777, text: "nowhere"},
	{path: "fifo", mode: unix.S_IFIFO | 0o620, uid: 1000},
	{path: "socket", mode: unix.S_IFSOCK | 0o755, uid: 1000},
	{path: "null", mode: unix.S_IFCHR | 0o666, gid: 5},
	{path: "odd\nname\xff", mode: unix.S_IFREG | 0o4644, uid: 1, text: "odd"},
	{path: ".isolate-link.0", mode: unix.S_IFREG | 0o644, uid: 2, text: "somebody's"},
	{path: "empty", mode: unix.S_IFDIR | 0o755},
}

// hardLinks are more names of files: a pair, three in several directories, one of
// a program with everything, and one of a link.
var hardLinks = map[string][]string{
	"plain":      {"plain2"},
	"last":       {"dir/last2", "dir/deep/last3"},
	"everything": {"dir/everything2"},
	"su":         {"su2"},
	"dangling":   {"dir/dangling2"},
}

// makeFiles makes the tree.
func makeFiles(t testing.TB, dir string) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		switch f.mode & unix.S_IFMT {
		case unix.S_IFDIR:
			must(t, os.Mkdir(path, 0o755))
		case unix.S_IFREG:
			must(t, os.WriteFile(path, []byte(f.text), 0o644))
		case unix.S_IFLNK:
			must(t, os.Symlink(f.text, path))
		default:
			must(t, unix.Mknod(path, f.mode, int(unix.Mkdev(1, 3))))
		}
		must(t, os.Lchown(path, int(f.uid), int(f.gid)))
		if f.mode&unix.S_IFMT == unix.S_IFLNK {
			continue
		}
		for _, attr := range slices.Sorted(maps.Keys(f.attrs)) {
			must(t, unix.Setxattr(path, attr, unhex(t, f.attrs[attr]), 0))
		}
		must(t, unix.Chmod(path, f.mode&0o7777))
	}
	for first, others := range hardLinks {
		for _, other := range others {
			must(t, os.Link(filepath.Join(dir, first), filepath.Join(dir, other)))
		}
	}
	must(t, os.Chmod(dir, 0o755))
}

// describe tells all that there is to know of a tree, with ids as they are before
// a shift to the range from first on. Names of one file are listed with it.
func describe(t testing.TB, dir string, first uint32) map[string]string {
	t.Helper()
	id := func(id uint32) string {
		if id < first || id >= first+65536 {
			return fmt.Sprintf("host %d", id)
		}
		return fmt.Sprint(id - first)
	}
	names := map[link][]string{}
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%o %s:%s", st.Mode, id(st.Uid), id(st.Gid))
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			text += fmt.Sprintf(" mtime %d size %d", st.Mtim.Nano(), st.Size)
			names[link{st.Dev, st.Ino}] = append(names[link{st.Dev, st.Ino}], rel)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", content)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			for _, attr := range []string{xattrCapability, xattrAccess, xattrDefault, "user.note"} {
				value, err := getxattr(path, attr)
				if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
					return fmt.Errorf("%s of %q: %w", attr, path, err)
				}
				if value != nil {
					text += " " + attr + "=" + describeValue(t, attr, value, first)
				}
			}
		}
		out[rel] = text
		return nil
	})
	must(t, err)
	for _, group := range names {
		slices.Sort(group)
		for _, name := range group {
			out[name] += " links " + strings.Join(group, ",")
		}
	}
	return out
}

func describeValue(t testing.TB, attr string, value []byte, first uint32) string {
	t.Helper()
	s := newShift([]idmap.Span{spanAt(first)}, idmap.Span{Size: 65536})
	if first == 0 {
		s = shift{To: idmap.Span{Size: 65536}}
	}
	move := s.acl
	if attr == xattrCapability {
		move = s.capability
		if c, err := parseCapability(value); err == nil && first != 0 && c.Root != first {
			return fmt.Sprintf("%x (root %d)", value, c.Root)
		}
	}
	if attr == "user.note" {
		return hex.EncodeToString(value)
	}
	back, _, left, err := move(value)
	if err != nil || left {
		return fmt.Sprintf("%x (left %v, %v)", value, left, err)
	}
	return hex.EncodeToString(back)
}

// compare reports every difference between two trees.
func compare(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("%s: %q is\n%s\nwant\n%s", what, path, got[path], want[path])
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %q is left over", what, path)
		}
	}
}
