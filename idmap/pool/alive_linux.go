// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inUse tells what still uses the range of a record, "" for nothing. Whatever it
// cannot find out counts as used.
func (r record) inUse() string {
	for _, p := range r.inits {
		if alive, err := p.alive(); err != nil {
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

// processOf returns the process with this pid, which must be alive.
func processOf(pid int) (Process, error) {
	state, start, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	if dead(state) {
		return Process{}, fmt.Errorf("process %d has ended", pid)
	}
	return Process{PID: pid, Start: start}, nil
}

func (p Process) alive() (bool, error) {
	state, start, err := readStat(p.PID)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return start == p.Start && !dead(state), nil
}

// dead tells a state of proc_pid_stat(5) in which a process has no resources any
// more and waits for its parent only. The init of a pid namespace becomes a
// zombie after all others in there are gone.
func dead(state byte) bool { return state == 'Z' || state == 'X' }

func readStat(pid int) (state byte, start uint64, err error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(string(content))
}

// parseStat returns the state and start time of /proc/PID/stat. The name before
// them is whatever the process likes, parentheses and newlines included, so
// counting starts at the last closing one.
func parseStat(content string) (state byte, start uint64, err error) {
	end := strings.LastIndexByte(content, ')')
	fields := strings.Fields(content[end+1:])
	// state is field 3, the first one after the name; starttime is field 22.
	if end < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("parse process stat %q: too short", content)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("parse process stat %q: start time: %w", content, err)
	}
	return fields[0][0], start, nil
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
