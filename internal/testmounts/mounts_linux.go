// SPDX-License-Identifier: Apache-2.0

package testmounts

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// Mount mounts a new file system at a path until the test ends.
func Mount(tb testing.TB, fsType, path, data string) {
	tb.Helper()
	Mkdir(tb, path)
	if err := unix.Mount(fsType, path, fsType, 0, data); err != nil {
		tb.Fatalf("mount %s: %v", fsType, err)
	}
	tb.Cleanup(func() { Unmount(tb, path) })
}

// Overlay mounts an overlay as a client would, at dir/merged, until the test ends.
func Overlay(tb testing.TB, dir, options string) {
	tb.Helper()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		Mkdir(tb, dir+"/"+name)
	}
	Write(tb, dir+"/lower/file", "lower")
	data := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work" + options
	Check(tb, unix.Mount("overlay", dir+"/merged", "overlay", 0, data))
	tb.Cleanup(func() { _ = unix.Unmount(dir+"/merged", unix.MNT_DETACH) })
}

// Attach attaches m at path and closes it, and unmounts in the end.
func Attach(tb testing.TB, m *os.File, path string) {
	tb.Helper()
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		tb.Fatalf("attach %s at %q: %v", m.Name(), path, err)
	}
	if err := m.Close(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { Unmount(tb, path) })
}

// Detach unmounts what must not be busy, except for the moment in which a child
// that another test just forked holds copies of all descriptors.
func Detach(tb testing.TB, path string) {
	tb.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := unix.Unmount(path, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			tb.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Unmount detaches what is mounted at a path, if something is.
func Unmount(tb testing.TB, path string) {
	tb.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		tb.Error(err)
	}
}

// Lines returns the lines of mountinfo that mention dir, to see that a call
// left no mount there.
func Lines(tb testing.TB, dir string) string {
	tb.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	var found string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, dir) {
			found += line
		}
	}
	return found
}

// Userns makes a user namespace with a mapping, which lasts until the test ends.
func Userns(tb testing.TB, m idmap.Mapping) *os.File {
	tb.Helper()
	ns, err := userns.New(m)
	Check(tb, err)
	tb.Cleanup(func() { Close(tb, ns) })
	return ns
}
