// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes lists the processes of a group and of all groups below it, sorted. A process
// that ends during the call may be left out; 0 stands for processes outside of the pid
// namespace. The error is fs.ErrNotExist if there is no such group.
func Processes(ctx context.Context, dir string) ([]int, error) {
	top, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	defer top.Close()
	var all []int
	err = walk(ctx, top, visitor{enter: func(at int, name string) error {
		pids, err := processes(at, name)
		all = append(all, pids...)
		return err
	}})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// processes lists the processes of one group.
func processes(at int, name string) ([]int, error) {
	content, err := read(at, name, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) { // threaded: they are in the group above
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ParseProcesses(content)
}

// ParseProcesses reads the content of cgroup.procs.
func ParseProcesses(content string) ([]int, error) {
	var pids []int
	for field := range strings.FieldsSeq(content) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("parse cgroup.procs: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// errFound ends a walk early.
var errFound = errors.New("found")

// Populated tells whether a process is in a group or below it. A group that does not
// exist has none. On version 2 the group says it (cgroup.events); on version 1 the tree
// is searched.
func Populated(ctx context.Context, dir string) (bool, error) {
	top, err := open(dir)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for processes of cgroup: %w", err)
	}
	defer top.Close()
	populated, err := populated(ctx, top)
	if err != nil {
		return false, fmt.Errorf("look for processes of cgroup %s: %w", dir, err)
	}
	return populated, nil
}

func populated(ctx context.Context, top *os.File) (bool, error) {
	events, err := read(int(top.Fd()), ".", "cgroup.events")
	if err == nil {
		for line := range strings.Lines(events) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "populated "); ok {
				return value != "0", nil
			}
		}
		return false, errors.New("cgroup.events has no line \"populated\"")
	}
	if !gone(err) {
		return false, err
	}
	err = walk(ctx, top, visitor{enter: func(at int, name string) error {
		content, err := read(at, name, "cgroup.procs")
		if err == nil && content != "" {
			err = errFound
		}
		return err
	}})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}
