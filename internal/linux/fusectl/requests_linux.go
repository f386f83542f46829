// SPDX-License-Identifier: Apache-2.0

package fusectl

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Requests are those of one connection that have no answer. To count them asks the
// server nothing, and takes some microseconds.
type Requests struct{ dir *os.File }

// OpenRequests opens a connection by the number of its superblock; see [Connection].
func OpenRequests(device uint32) (*Requests, error) {
	root, err := mount()
	if err != nil {
		return nil, fmt.Errorf("control file system of FUSE: %w", err)
	}
	defer root.Close()
	dir, err := openAt(root, strconv.FormatUint(uint64(device), 10), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("FUSE connection %d: %w", device, err)
	}
	return &Requests{dir}, nil
}

// Waiting counts them. The error is fs.ErrNotExist if the connection has ended, also
// when its number is another's then.
func (r *Requests) Waiting() (int, error) {
	file, err := openAt(r.dir, "waiting", unix.O_RDONLY) // it can be read once, from the beginning
	if err != nil {
		return 0, err
	}
	var text [32]byte
	n, err := file.Read(text[:])
	file.Close()
	if n == 0 {
		return 0, fmt.Errorf("FUSE connection: %w: %w", fs.ErrNotExist, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text[:n])))
}

// Close lets go of the connection.
func (r *Requests) Close() error { return r.dir.Close() }
