// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A process that was killed is in its cgroup until it is gone: for milliseconds,
// unless the machine is very busy.
const (
	cgroupPause    = 20 * time.Millisecond
	cgroupPatience = 500 * time.Millisecond
)

// removeCgroups removes cgroups and those below. The runtime does that for every
// container that it knows; one that was killed while it created a container
// leaves cgroups of which it knows nothing. A cgroup that stays in use stays: a
// caller may have put several containers into one.
func removeCgroups(dirs []string) error {
	var errs []error
	deadline := time.Now().Add(cgroupPatience)
	for _, dir := range dirs {
		err := removeTree(dir)
		for errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			time.Sleep(cgroupPause)
			err = removeTree(dir)
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("remove cgroup %q: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a directory and the directories below, never a file: those
// of a cgroup go with it.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, listErr := os.ReadDir(dir)
	if listErr != nil {
		return err
	}
	children := false
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		children = true
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if !children {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
