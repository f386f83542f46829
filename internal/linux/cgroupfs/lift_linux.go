// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Lift lifts limits that keep processes from ending in groups below a group, if owner
// says that the user who owns the group is the container's: SIGKILL waits for a read
// that is throttled to a byte a second, and before Linux 6.18 for the processor time
// that a killed process needs to end.
//
// The limits of the group itself stay: the container has not set them.
func Lift(ctx context.Context, dir string, owner func(uid uint32) bool) error {
	top, err := open(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lift limits: %w", err)
	}
	defer top.Close()
	var here []limit
	for _, l := range limits {
		if _, err := read(int(top.Fd()), ".", l.file); err == nil {
			here = append(here, l)
		}
	}
	if len(here) == 0 {
		return nil // another hierarchy
	}
	v := visitor{skip: func(st unix.Stat_t) bool { return !owner(st.Uid) }, enter: func(at int, name string) error {
		if name == "." {
			return nil
		}
		return lift(at, name, here)
	}}
	if err := walk(ctx, top, v); err != nil {
		return fmt.Errorf("lift limits below cgroup %s: %w", dir, err)
	}
	return nil
}

// limit is a file of a group by which its processes are slowed down.
type limit struct {
	file string
	// none is the line that stands for no limit. With perDevice set, it is the part of
	// the line behind the device's number.
	none      string
	perDevice bool
}

var limits = []limit{
	{file: "io.max", none: "rbps=max wbps=max riops=max wiops=max", perDevice: true},
	{file: "cpu.max", none: "max"},
	{file: "blkio.throttle.read_bps_device", none: "0", perDevice: true},
	{file: "blkio.throttle.write_bps_device", none: "0", perDevice: true},
	{file: "blkio.throttle.read_iops_device", none: "0", perDevice: true},
	{file: "blkio.throttle.write_iops_device", none: "0", perDevice: true},
	{file: "cpu.cfs_quota_us", none: "-1"},
}

// lift lifts the limits of one group, in which controllers may be off.
func lift(at int, name string, limits []limit) error {
	for _, l := range limits {
		content, err := read(at, name, l.file)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, line := range l.lifted(content) {
			if err := write(at, name, l.file, line); ignoreGone(err) != nil {
				return err
			}
		}
	}
	return nil
}

// lifted returns the lines to write into a file with this content.
func (l limit) lifted(content string) (lines []string) {
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == l.none:
		case l.perDevice:
			lines = append(lines, fields[0]+" "+l.none)
		default:
			lines = append(lines, l.none)
		}
	}
	return lines
}
