// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"io"
	"time"
)

// ErrSlowTable means that the kernel takes so long to write a mountinfo that only its
// beginning was read. For each line it goes through all mounts below that mount
// (fs/d_path.c: prepend_path), so that 20,000 on one place take seconds, and 100,000
// minutes. listmount(2) and statmount(2) take as long: they go the same way to find out
// what can be reached (fs/namespace.c: is_path_reachable).
var ErrSlowTable = errors.New("the mount table is too large to be read in time")

// shortTable is how many bytes of a mountinfo are read in any case: more than any but a
// container that means harm has, and at worst what the kernel writes in a fifth of a
// second.
const shortTable = 256 << 10

// Table reads a mountinfo that a container can make as large as it likes.
type Table struct {
	// Mountinfo is the open file (proc_pid_mountinfo(5)).
	Mountinfo io.Reader
	// Until is when reading ends with [ErrSlowTable], unless the table is short.
	Until time.Time

	read int
}

func (t *Table) Read(b []byte) (int, error) {
	if t.read > shortTable && time.Now().After(t.Until) {
		return 0, ErrSlowTable
	}
	n, err := t.Mountinfo.Read(b)
	t.read += n
	return n, err
}
