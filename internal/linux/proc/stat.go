// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// Tick is the unit of start times, the same on all platforms (USER_HZ).
const Tick = 10 * time.Millisecond

// Stat is what isolate reads of /proc/PID/stat (proc_pid_stat(5)).
type Stat struct {
	State  byte // field 3
	Parent int  // field 4
	// Exiting is set when the first thread is about to end or has ended (PF_EXITING in
	// field 9); the kernel shows no cgroup of version 1 for it any more.
	Exiting bool
	// Start is the start time in clock ticks since boot, field 22. In a time
	// namespace it is shifted by the reader's offset.
	Start uint64
}

// ParseStat parses the content of /proc/PID/stat. A process can give itself any name,
// with parentheses and newlines, so the fields are counted from the last closing
// parenthesis on.
func ParseStat(content []byte) (Stat, error) {
	end := bytes.LastIndexByte(content, ')')
	fields := bytes.Fields(content[end+1:])
	if end < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, fmt.Errorf("parse process stat %q: too short", content)
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return Stat{}, fmt.Errorf("parse process stat %q: parent: %w", content, err)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("parse process stat %q: start time: %w", content, err)
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("parse process stat %q: flags: %w", content, err)
	}
	const exiting = 0x4 // PF_EXITING of <linux/sched.h>
	return Stat{State: fields[0][0], Parent: parent, Start: start, Exiting: flags&exiting != 0}, nil
}
