// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
)

// Unmount is umount2(2).
var Unmount = unix.Unmount

// StageDir is where the shim mounts the container's staging tmpfs.
func (r *Record) StageDir() (string, error) {
	d, err := r.Dir()
	return filepath.Join(d, "stage"), err
}

// RootfsDir is where a rootfs is mounted. In a bundle it is the only mount point
// allowed: containerd unmounts it before it removes the bundle, and deletes the
// contents of anything else mounted there.
//
// For callers that name a directory it is not in the bundle, since dockerd closes
// the directories of the containerd that it has started to all but root, and the
// runtime goes to the rootfs as the container's root.
func (r *Record) RootfsDir() string {
	if r.Directory {
		return filepath.Join(r.stateRoot(), r.Namespace, r.ID, "rootfs")
	}
	return filepath.Join(r.Bundle, "rootfs")
}

// ListenerPath is the socket for the container's seccomp notifications. Its name
// is a hash, because names of sockets are short (unix(7): 107 bytes).
func (r *Record) ListenerPath() string {
	sum := sha256.Sum256([]byte(r.Namespace + "/" + r.ID))
	return filepath.Join(r.stateRoot(), ".notify", hex.EncodeToString(sum[:16]))
}

// DropStage unmounts the staging tmpfs and all that is mounted on it. The
// container keeps its own copies. The unmount is lazy: it must not wait for
// whatever holds a staged file.
func (r *Record) DropStage() error {
	d, err := r.StageDir()
	if err != nil {
		return err
	}
	if err := detach(d); err != nil {
		return err
	}
	if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
}

// Restore puts back what the caller has mounted, as rootfs.Replacement does.
type Restore func(*Premounted) error

// CleanupAfter is Cleanup after an attempt to end the container. If that has failed
// the record stays, so that the next one with this id can end what is left.
func (r *Record) CleanupAfter(ended error, restore Restore) error {
	if ended != nil {
		return r.undo(restore)
	}
	return r.Cleanup(restore)
}

// undo undoes everything but the lease, which package pool gives back.
func (r *Record) undo(restore Restore) error {
	errs := []error{r.DropStage()}
	if r.Rootfs {
		errs = append(errs, detach(r.RootfsDir()))
	}
	if r.Premounted != nil {
		errs = append(errs, restore(r.Premounted))
	}
	if err := os.Remove(r.ListenerPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove listener: %w", err))
	}
	return errors.Join(append(errs, r.removeCgroups())...)
}

// Cleanup undoes everything but the lease, and removes the record last. It may run
// again after an error or a crash.
func (r *Record) Cleanup(restore Restore) error {
	if err := r.undo(restore); err != nil {
		return err
	}
	d, err := r.Dir()
	if err != nil {
		return err
	}
	// Not RemoveAll: only what Save and DropStage made is ours to remove, and
	// anything mounted below must survive. The directory goes with its lock.
	errs := []error{atomicfile.Sweep(filepath.Join(d, file))}
	for _, name := range []string{"rootfs", file} {
		if err := os.Remove(filepath.Join(d, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove record: %w", err))
		}
	}
	return errors.Join(append(errs, r.finished())...)
}

// detach lazily unmounts everything stacked on a directory of ours.
func detach(dir string) error {
	for {
		err := Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // not a mount point
			return nil
		default:
			return fmt.Errorf("unmount %q: %w", dir, err)
		}
	}
}
