// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"fmt"
	"time"

	"github.com/isolate-shim/isolate/idmap"
)

// Report is what a run has done so far.
type Report struct {
	Inodes int // looked at, by name
	Moved  int // of them, whose ids were moved
	// Left, Immutable and Strange are those that stay as they are.
	Left      Count // ids in no span
	Immutable Count // chattr +i or +a
	Strange   Count // ACLs or capabilities that cannot be read
	Took      time.Duration
}

// Count is a number of inodes, and the path of the first one below the root.
type Count struct {
	N     int
	First string
}

func (c *Count) add(path string) {
	if c.N == 0 {
		c.First = path
	}
	c.N++
}

// String is for a log line.
func (r Report) String() string {
	return fmt.Sprintf("%d of %d files moved in %v", r.Moved, r.Inodes, r.Took.Round(time.Millisecond))
}

// Warnings says what a user will miss, in one line for each reason.
func (r Report) Warnings(to idmap.Span) []string {
	var out []string
	say := func(c Count, format string, args ...any) {
		if c.N > 0 {
			out = append(out, fmt.Sprintf("rootfs: %d files, of which %q is the first, ", c.N, c.First)+fmt.Sprintf(format, args...))
		}
	}
	say(r.Left, "belong to ids beyond the container's %d and show as nobody; raise ids.size", to.Size)
	say(r.Immutable, "are immutable (chattr +i or +a) and show as nobody; make them mutable and start the container again")
	say(r.Strange, "have an ACL or a file capability that cannot be read, which does not count inside")
	return out
}
