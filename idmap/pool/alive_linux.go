// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// inUse tells what still uses the range of a record, "" for nothing. Whatever it
// cannot find out counts as used.
func (r record) inUse() string {
	for _, p := range r.inits {
		if alive, err := p.Alive(); err != nil {
			return fmt.Sprintf("cannot tell whether process %d is alive: %v", p.PID, err)
		} else if alive {
			return fmt.Sprintf("process %d is alive", p.PID)
		}
	}
	for _, dir := range r.cgroups {
		if populated, err := cgroupPopulated(dir); err != nil {
			return fmt.Sprintf("cannot tell whether cgroup %q is empty: %v", dir, err)
		} else if populated {
			return fmt.Sprintf("cgroup %q has processes", dir)
		}
	}
	return ""
}

// cgroupPopulated tells whether a process is in a cgroup or below it. Version 2
// says so itself (cgroup.events, "populated"); on version 1 the tree is walked.
func cgroupPopulated(dir string) (bool, error) {
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err == nil {
		for line := range strings.Lines(string(events)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "populated "); ok {
				return value != "0", nil
			}
		}
		return false, errors.New("cgroup.events does not say")
	}
	if !gone(err) {
		return false, err
	}
	populated := false
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case gone(err): // removed meanwhile
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		some, err := hasProcesses(filepath.Join(path, "cgroup.procs"))
		if gone(err) {
			return nil
		}
		if some {
			populated = true
			return fs.SkipAll
		}
		return err
	})
	return populated, err
}

func hasProcesses(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // read-only
	s := bufio.NewScanner(f)
	return s.Scan(), s.Err()
}

// gone tells that a cgroup does not exist, or ceased to while it was read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
