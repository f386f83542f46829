// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	linuxmount "github.com/isolate-shim/isolate/internal/linux/mount"
)

// File is one file of lxcfs.
type File struct {
	// Name is relative to the mount point: "proc/meminfo". The file has the same
	// place below "/" of a container.
	Name string
	// Mount is the file as a detached mount, to be attached with move_mount(2).
	// Attaching uses it up; closing it then leaves the mount where it is.
	Mount *os.File
}

// CloneFiles clones files, or none. Linux cannot clone detached mounts before 6.15;
// the error is then EINVAL.
func CloneFiles(files []File) ([]File, error) {
	var clones []File
	for _, f := range files {
		mount, err := linuxmount.CloneTree(int(f.Mount.Fd()), "", linuxmount.CloneOptions{})
		if err != nil {
			CloseFiles(clones)
			return nil, err
		}
		clones = append(clones, File{Name: f.Name, Mount: mount})
	}
	return clones, nil
}

// CloseFiles closes the mounts of files.
func CloseFiles(files []File) {
	for _, f := range files {
		f.Mount.Close()
	}
}

// Ask asks the server of a file, which was opened with O_PATH, for a sign of life. It
// waits until the server answers, so that only a disposable process may ask.
func Ask(file *os.File) error {
	var st unix.Statx_t
	err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	runtime.KeepAlive(file)
	return err
}

// IsDead tells whether an error means that the server of a file is dead.
func IsDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}
