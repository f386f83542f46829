// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The requests of <linux/fuse.h> that a server answers, and the length of a header.
const (
	fuseInit      = 26
	fuseHeader    = 40
	fuseOutHeader = 16
)

// mountFuse mounts a FUSE file system and returns the descriptor of its server.
func mountFuse(dir string) int {
	must(os.MkdirAll(dir, 0o755))
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(err)
	must(unix.Mount("escape", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device)))
	return device
}

// stall serves nothing: it takes every request, and answers only the first one, by
// which the kernel begins. What has been taken is waited for by its process,
// whatever signal that gets.
func stall(device int, taken chan<- struct{}) {
	buffer := make([]byte, 1<<17)
	for {
		n, err := unix.Read(device, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < fuseHeader {
			return // the connection was ended
		}
		request := binary.NativeEndian
		if request.Uint32(buffer[4:]) != fuseInit {
			select {
			case taken <- struct{}{}:
			default:
			}
			continue
		}
		answer := make([]byte, fuseOutHeader+64)
		request.PutUint32(answer, uint32(len(answer)))
		request.PutUint64(answer[8:], request.Uint64(buffer[8:]))
		request.PutUint32(answer[fuseOutHeader:], 7)
		request.PutUint32(answer[fuseOutHeader+4:], 31)
		request.PutUint32(answer[fuseOutHeader+20:], 4096) // max_write
		_, err = unix.Write(device, answer)
		must(err)
	}
}
