// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// errRestless says that processes start and end faster than they can be looked at.
var errRestless = errors.New("processes start and end faster than they can be looked at")

// manyPIDs is how many pids are looked up one by one before all processes are
// listed again.
const manyPIDs = 4096

// Each calls look with the pid of every process that this /proc shows. It calls look for
// some pids more than once, and for some that belong to a thread or to no process any
// more. When Each returns nil, it has called look for every living process, or for an
// ancestor that the process had when Each began.
//
// One list of /proc does not give that: the list is read in the order of pids, and a
// process at its end may start a child at its beginning and be gone when its own turn
// comes. But the kernel gives pids out in ascending order and tells the last one. So
//
//   - Each lists all processes twice. The second list has the processes whose fork was
//     under way: a pid is given out a moment before its process shows, while its parent
//     waits;
//   - then Each looks at the pids that were given out since it began, in ascending
//     order, so that a parent comes before its child, until there are no more. Then
//     every living process has been there to be looked at.
//
// If the pids begin again at the bottom during that, Each begins again. It gives up with
// an error when patience has passed, and at once with an error of look.
func Each(patience time.Duration, look func(pid int) error) error {
	for deadline := time.Now().Add(patience); ; {
		quiet, err := each(deadline, look)
		if quiet || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errRestless
		}
	}
}

// each is false if it cannot tell which pids were given out.
func each(deadline time.Time, look func(pid int) error) (bool, error) {
	last, err := lastPID()
	if err != nil {
		return false, err
	}
	looked := map[int]bool{}
	for range 2 {
		if err := list(looked, look); err != nil {
			return false, err
		}
	}
	for {
		now, err := lastPID()
		if err != nil || now == last {
			return err == nil, err
		}
		if now < last || now-last > manyPIDs {
			return false, nil
		}
		for last < now {
			last++
			if err := look(last); err != nil {
				return false, err
			}
		}
		if time.Now().After(deadline) {
			return false, errRestless
		}
	}
}

// list calls look for the processes that are not in looked.
func list(looked map[int]bool, look func(pid int) error) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || looked[pid] {
			continue
		}
		looked[pid] = true
		if err := look(pid); err != nil {
			return err
		}
	}
	return nil
}

// lastPID returns the pid that was given out last in the pid namespace of this process,
// to a process or a thread in that namespace or below it.
func lastPID() (int, error) {
	content, err := os.ReadFile("/proc/sys/kernel/ns_last_pid")
	if errors.Is(err, os.ErrNotExist) { // a kernel without CONFIG_CHECKPOINT_RESTORE
		content, err = loadavg()
	}
	if err != nil {
		return 0, fmt.Errorf("last pid: %w", err)
	}
	fields := bytes.Fields(content)
	if len(fields) == 0 {
		return 0, errors.New("last pid: no number")
	}
	pid, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil {
		return 0, fmt.Errorf("last pid: %w", err)
	}
	return pid, nil
}

// loadavg reads the kernel's own /proc/loadavg. Its last field is the last pid. The file
// of lxcfs, which covers it in a container, has another number there.
func loadavg() ([]byte, error) {
	const path = "/proc/loadavg"
	var root, file unix.Statx_t
	for name, to := range map[string]*unix.Statx_t{"/proc": &root, path: &file} {
		if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, 0, to); err != nil {
			return nil, &os.PathError{Op: "statx", Path: name, Err: err}
		}
	}
	if root.Dev_major != file.Dev_major || root.Dev_minor != file.Dev_minor {
		return nil, fmt.Errorf("%s is covered by another file system, and this kernel has no /proc/sys/kernel/ns_last_pid", path)
	}
	return os.ReadFile(path)
}
