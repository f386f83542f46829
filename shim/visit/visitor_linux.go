// SPDX-License-Identifier: Apache-2.0

package visit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
)

// visitors are threads of the host's programs in a rootfs.
type visitors struct {
	threads []string // their directories in /proc
	is      func(thread string) bool
}

// visitors finds the threads that are in the rootfs. Only those of the host's root can be,
// and a thread of the container is in another user namespace.
func (w *Watch) visitors() (visitors, error) {
	root, err := directoryAt(w.rootfs.Path)
	if err != nil {
		return visitors{}, fmt.Errorf("look at rootfs: %w", err)
	}
	host, err := ns.Own("user")
	if err != nil {
		return visitors{}, err
	}
	v := visitors{is: func(thread string) bool {
		at, err := directoryAt(thread + "/root")
		if err != nil || at != root {
			return false
		}
		userns, err := ns.At(thread + "/ns/user")
		return err == nil && userns == host
	}}
	return v, v.find()
}

func (v *visitors) find() error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	pids, err := proc.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+pid, &st); err != nil || st.Uid != 0 {
			continue
		}
		tasks, err := os.ReadDir("/proc/" + pid + "/task")
		if err != nil {
			continue // it has ended
		}
		for _, task := range tasks {
			if thread := "/proc/" + pid + "/task/" + task.Name(); v.is(thread) {
				v.threads = append(v.threads, thread)
			}
		}
	}
	return nil
}

// leave waits until all have left.
func (v *visitors) leave(ctx context.Context) error {
	for wait := 5 * time.Millisecond; len(v.threads) > 0; wait = min(2*wait, 200*time.Millisecond) {
		sleep(ctx, wait)
		if err := ctx.Err(); err != nil {
			return err
		}
		v.threads = slices.DeleteFunc(v.threads, func(thread string) bool { return !v.is(thread) })
	}
	return nil
}

// directory is one, by its file system and number.
type directory struct {
	major, minor uint32
	inode        uint64
}

// directoryAt asks no server of a network or FUSE file system.
func directoryAt(path string) (directory, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st); err != nil {
		return directory{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_INO == 0 {
		return directory{}, errors.New("statx: no inode number")
	}
	return directory{st.Dev_major, st.Dev_minor, st.Ino}, nil
}
