// SPDX-License-Identifier: Apache-2.0

package inotify

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := Directories(dir, uint32(os.Geteuid())) //nolint:gosec // ids are not negative
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := errors.Join(os.WriteFile(dir+"/file", nil, 0o600), os.Mkdir(dir+"/first", 0o700)); err != nil {
		t.Fatal(err)
	}
	if names, err := d.Next(); !slices.Equal(names, []string{"first"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := d.Pending(); len(names) != 0 || err != nil {
		t.Errorf("nothing was made, but %q, %v", names, err)
	}
	ended := make(chan error)
	go func() {
		_, err := d.Next()
		ended <- err
	}()
	if err := d.Interrupt(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
	if err := os.Mkdir(dir+"/second", 0o700); err != nil {
		t.Fatal(err)
	}
	if names, err := d.Pending(); !slices.Equal(names, []string{"second"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Pending(); !errors.Is(err, errUnwatched) {
		t.Errorf("the directory is gone: %v", err)
	}
}

func TestOverflow(t *testing.T) {
	t.Parallel()
	events := []byte{0xff, 0xff, 0xff, 0xff, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if names, err := parse(events, false); !slices.Equal(names, []string{""}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	w, err := Entries([]string{first, second, first}, uint32(os.Geteuid())) //nolint:gosec // ids are not negative
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	err = errors.Join(
		os.WriteFile(first+"/file", nil, 0o600), os.Rename(first+"/file", second+"/moved"),
		os.Mkdir(second+"/directory", 0o700), os.RemoveAll(first), os.Symlink("x", second+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	if names, err := w.Pending(); !slices.Equal(names, []string{"file", "moved", "directory", "link"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := Entries([]string{second, first}, uint32(os.Geteuid())); !errors.Is(err, os.ErrNotExist) { //nolint:gosec // ids are not negative
		t.Errorf("one is not there: %v", err)
	}
}

// TestFull: the kernel's words for it are of files and of disks.
func TestFull(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		unix.EMFILE: "inotify_init1: too many open files: raise fs.inotify.max_user_instances (sysctl)",
		unix.ENOSPC: "inotify_init1: no space left on device",
	} {
		if got := full("inotify_init1", err, unix.EMFILE, "fs.inotify.max_user_instances"); got.Error() != want || !errors.Is(got, err) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	dir := t.TempDir()
	if _, err := Directories(dir+"/none", uint32(os.Geteuid())); !errors.Is(err, os.ErrNotExist) { //nolint:gosec // ids are not negative
		t.Error(err)
	}
}
