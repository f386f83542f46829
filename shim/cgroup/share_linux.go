// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

// Shared is the CPU quota of a container, which groups of containers inside have too.
//
// lxcfs before version 7 takes the quota of the reader's own group alone, so a container
// inside without one would see all CPUs of the host. The quota of the container bounds it
// anyway: to repeat it there changes what it sees and not what it gets.
type Shared struct {
	dir     string
	unified bool
	quota   quota
}

// ShareOf finds the quota of a group, whose directories are dirs, one in each hierarchy.
// It returns nil if there is none.
func ShareOf(dirs []string) *Shared {
	for _, dir := range dirs {
		if q, unified, ok := readQuota(dir); ok {
			return &Shared{dir: dir, unified: unified, quota: q}
		}
	}
	return nil
}

// With gives the group of a process, which is to be the first one of its pid namespace,
// the quota, if it is below the container's and has none. It does nothing for other
// processes, nor on version 1 if a group on the way has less.
//
// That the process ends, and that its id is then another's, does no harm: only groups
// below the container's are changed.
func (s *Shared) With(pid int) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !leads(string(status)) {
		return unlessGone(err)
	}
	memberships, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return unlessGone(err)
	}
	name, err := Path(string(memberships), "cpu")
	if err != nil {
		return err
	}
	group := path.Join(s.top(), strings.TrimSuffix(name, "/"+leafName)) // as lxcfs does
	rel, below := strings.CutPrefix(group, s.dir+"/")
	if !below {
		return nil
	}
	g, err := open(place{mountpoint: s.dir, rel: rel}, s.unified)
	if err != nil {
		return unlessGone(err)
	}
	defer g.Close()
	text, err := quotaText(s.unified, g.read)
	if err != nil {
		return unlessGone(err)
	}
	if _, own := parseQuota(text); own {
		return nil
	}
	return s.quota.give(s.unified, g.write)
}

// top is the root of the hierarchy.
func (s *Shared) top() string {
	if s.unified {
		return cgroupfs.Mountpoint
	}
	hierarchy, _, _ := strings.Cut(strings.TrimPrefix(s.dir, cgroupfs.Mountpoint+"/"), "/")
	return path.Join(cgroupfs.Mountpoint, hierarchy)
}

// Withdraw takes the quota from the groups below that have it by With, before that of the
// container changes: version 1 does not allow it to get less than theirs. The returned
// function gives them the new one.
func (s *Shared) Withdraw(ctx context.Context) (renew func(context.Context) error, _ error) {
	ours, none := s.quota.shared(), fmt.Sprintf("max %d", s.quota.shared().period)
	groups := 0
	err := cgroupfs.Below(ctx, s.dir, func(g cgroupfs.Group) error {
		text, err := quotaText(s.unified, g.Read)
		if q, _ := parseQuota(text); err != nil || q != ours {
			return nil //nolint:nilerr // without the controller
		}
		groups++
		if s.unified {
			return g.Write(maxV2, "max")
		}
		return g.Write(quotaV1, "-1")
	})
	return func(ctx context.Context) error {
		now, _, ok := readQuota(s.dir)
		if groups == 0 || !ok {
			return nil
		}
		return cgroupfs.Below(ctx, s.dir, func(g cgroupfs.Group) error {
			text, err := quotaText(s.unified, g.Read)
			// The period has stayed; and somebody can have started meanwhile.
			if q, _ := parseQuota(text); err != nil || text != none && q != ours {
				return nil //nolint:nilerr // without the controller
			}
			return now.give(s.unified, g.Write)
		})
	}, err
}

// quotaText is what a group has in cpu.max, also on version 1.
func quotaText(unified bool, read func(file string) (string, error)) (string, error) {
	if unified {
		text, err := read(maxV2)
		return strings.TrimSpace(text), err
	}
	limit, err1 := read(quotaV1)
	period, err2 := read(periodV1)
	text := strings.TrimSpace(limit) + " " + strings.TrimSpace(period)
	return strings.Replace(text, "-1 ", "max ", 1), errors.Join(err1, err2)
}

// give gives a group the quota of the container.
func (q quota) give(unified bool, write func(file, text string) error) error {
	for _, file := range q.shared().files(unified) {
		if err := write(file[0], file[1]); errors.Is(err, unix.EINVAL) {
			return nil // more than a group on the way has
		} else if err != nil {
			return unlessGone(err)
		}
	}
	return nil
}

// readQuota reads the quota of a group.
func readQuota(dir string) (_ quota, unified, ok bool) {
	read := func(file string) (string, error) {
		text, err := os.ReadFile(filepath.Join(dir, file))
		return string(text), err
	}
	text, err := quotaText(true, read)
	if unified = err == nil; !unified {
		text, err = quotaText(false, read)
	}
	q, ok := parseQuota(text)
	return q, unified, ok && err == nil
}

// leads tells whether a thread, whose /proc/PID/status it gets, is of the first process
// of its pid namespace.
func leads(status string) bool {
	for line := range strings.Lines(status) {
		if numbers, ok := strings.CutPrefix(line, "NStgid:"); ok {
			fields := strings.Fields(numbers)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// unlessGone is nil if an error means that a process has ended, or that a group is removed
// or without the controller.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
