// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const workPrefix = "isolate-rig-"

// makeWork makes the directory that holds everything the rig writes to a disk.
// It is short, for the sake of socket paths, may be traversed by mapped users,
// and is not on tmpfs or overlay, which not all kernels can idmap or put
// overlays on.
func makeWork() (string, error) {
	for _, base := range []string{os.TempDir(), "/var/tmp"} {
		var stat unix.Statfs_t
		if err := unix.Statfs(base, &stat); err != nil || stat.Type == unix.TMPFS_MAGIC || stat.Type == unix.OVERLAYFS_SUPER_MAGIC {
			continue
		}
		work, err := os.MkdirTemp(base, workPrefix)
		if err != nil {
			return "", fmt.Errorf("make rig directory: %w", err)
		}
		if err := fillWork(work); err != nil {
			return "", errors.Join(fmt.Errorf("make rig directory: %w", err), os.RemoveAll(work))
		}
		return work, nil
	}
	return "", fmt.Errorf("neither %q nor /var/tmp is on a disk; set TMPDIR to a directory that is", os.TempDir())
}

func fillWork(work string) error {
	if err := lockWork(work); err != nil {
		return err
	}
	err := os.Chmod(work, 0o711)
	dirs := []string{"tmp", "test"}
	for _, dir := range writable {
		dirs = append(dirs, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	}
	for _, dir := range dirs {
		err = errors.Join(err, os.MkdirAll(filepath.Join(work, dir), 0o755))
	}
	return err
}

// lockWork marks a directory as in use for as long as this process lives.
func lockWork(work string) error {
	fd, err := unix.Open(work, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %q: %w", work, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("lock %q: %w", work, err), unix.Close(fd))
	}
	return nil
}

// removeAbandoned removes what rigs have left whose outer process was killed.
// Their inner processes died with it. What cannot be removed stays for the next
// rig.
func removeAbandoned(base string) {
	dirs, err := filepath.Glob(filepath.Join(base, workPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		// A new one may not have been locked yet.
		if err != nil || time.Since(info.ModTime()) < time.Minute || lockWork(dir) != nil {
			continue
		}
		if err := errors.Join(removeCgroups(filepath.Base(dir)), os.RemoveAll(dir)); err != nil {
			fmt.Fprintf(os.Stderr, "remove abandoned rig: %v\n", err)
		}
	}
}
