// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"syscall"
)

// cpuOnline is the one file served below /sys that programs ask for.
const cpuOnline = "sys/devices/system/cpu/online"

// Limits of what a child may report; lxcfs 6 serves 12 files.
const (
	maxFiles   = 64
	maxMessage = 1024
)

// message is what the child sends, one to a datagram.
type message struct {
	// File is a file that lxcfs serves, relative to its mount point; the file's mount
	// comes along.
	File string `json:"file,omitempty"`
	// Skip is a file that cannot be used, because of Errno.
	Skip string `json:"skip,omitempty"`
	// Failed is what the child was doing when it gave up, because of Errno.
	Failed string        `json:"failed,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"`
	// Hidden means that another file system is mounted over lxcfs.
	Hidden bool `json:"hidden,omitempty"`
	// End is set in the last message.
	End bool `json:"end,omitempty"`
}

func (m message) encode() ([]byte, error) {
	data, err := json.Marshal(m)
	if err == nil && len(data) > maxMessage {
		err = fmt.Errorf("message of %d bytes", len(data))
	}
	return data, err
}

// decode reads a message and checks its file name: the names come from a
// directory listing of a FUSE server, and end up as paths in a container.
func decode(data []byte) (message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return message{}, fmt.Errorf("decode message: %w", err)
	}
	if m.File != "" && !servable(m.File) {
		return message{}, fmt.Errorf("file name %q is not one of lxcfs", m.File)
	}
	return m, nil
}

// withheld tells whether a container is not to get a file that lxcfs serves.
//
// slabinfo: lxcfs passes the host's on, which the kernel shows to the host's root
// alone, and keeps 17 to 25 kB of its own memory for each open descriptor.
//
// diskstats on cgroup v1: lxcfs 5 and 6 are killed by a null pointer when the
// path of the reader's blkio group is longer than PATH_MAX (proc_diskstats_read in
// proc_fuse.c uses what get_io_serviced did not set), and with them every
// container loses its files. A container makes such groups at will. On v2 the
// path is not used.
func withheld(name string, blkio bool) bool {
	return name == "proc/slabinfo" || name == "proc/diskstats" && blkio
}

// servable tells whether a file of lxcfs has a place in a container: a file below
// proc, or cpuOnline.
func servable(name string) bool {
	if name == cpuOnline {
		return true
	}
	rest, ok := strings.CutPrefix(name, "proc/")
	if !ok || rest == "" || len(name) > 128 || path.Clean(name) != name {
		return false
	}
	return !strings.ContainsFunc(rest, func(r rune) bool { return r < '!' || r > '~' })
}
