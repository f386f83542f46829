// SPDX-License-Identifier: Apache-2.0

package fusetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Server is a FUSE server of a root directory with one file, proc/meminfo, which is
// empty. A test can mount something on it.
type Server struct {
	// Hang makes the server take requests without answering them.
	Hang atomic.Bool
	// HangReads is Hang for what reads the file, and nothing else.
	HangReads atomic.Bool
	// Size is the size of the file, whose content cannot be read.
	Size atomic.Uint64

	target string
	ended  chan struct{}
}

// Operations of <linux/fuse.h>.
const (
	fuseLookup  = 1
	fuseForget  = 2
	fuseGetattr = 3
	fuseRead    = 15
	fuseStatfs  = 17
	fuseInit    = 26
	fuseAccess  = 34
)

// Mount starts a server on a directory, as a file system of type "fuse" or
// "fuse.SUBTYPE"; device is the path of /dev/fuse.
func Mount(device, target, fsType string) (*Server, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: device, Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("fuse", target, fsType, 0, options); err != nil {
		return nil, fmt.Errorf("mount fuse: %w", err)
	}
	s := &Server{target: target, ended: make(chan struct{})}
	go func() {
		s.serve(fd)
		unix.Close(fd)
		close(s.ended)
	}()
	return s, nil
}

// Close ends the server: its files answer ENOTCONN wherever they are mounted, and
// every caller that waits goes on.
func (s *Server) Close() error {
	if err := unix.Unmount(s.target, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount fuse: %w", err)
	}
	<-s.ended
	return nil
}

func (s *Server) serve(fd int) {
	request := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fd, request)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		if s.Hang.Load() {
			continue
		}
		native := binary.NativeEndian
		if s.HangReads.Load() && native.Uint32(request[4:]) == fuseRead {
			continue
		}
		opcode, unique, node := native.Uint32(request[4:]), native.Uint64(request[8:]), native.Uint64(request[16:])
		var body bytes.Buffer
		put := func(values ...any) {
			for _, v := range values {
				binary.Write(&body, native, v) //nolint:errcheck // a buffer
			}
		}
		attr := func(node uint64) {
			mode := uint32(unix.S_IFDIR | 0o755)
			var sizes [5]uint64 // size, blocks and times
			if node == 3 {
				mode, sizes[0] = unix.S_IFREG|0o444, s.Size.Load()
			}
			put(node, sizes, [3]uint32{}, mode, uint32(2), [5]uint32{})
		}
		errno := int32(0)
		switch opcode {
		case fuseInit:
			put(uint32(7), uint32(31), [14]uint32{4: 4096})
		case fuseGetattr:
			put(uint64(0), uint32(0), uint32(0))
			attr(node)
		case fuseLookup:
			child := map[string]uint64{"proc": 2, "meminfo": 3}[string(bytes.TrimRight(request[40:n], "\x00"))]
			if child != node+1 { // they are one below the other
				errno = -int32(unix.ENOENT)
				break
			}
			put(child, uint64(0), uint64(0), uint64(0), uint32(0), uint32(0)) // valid for no time
			attr(child)
		case fuseStatfs:
			put([10]uint64{})
		case fuseAccess:
		case fuseForget:
			continue
		default:
			errno = -int32(unix.ENOSYS)
		}
		var reply bytes.Buffer
		for _, v := range []any{uint32(16 + body.Len()), errno, unique, body.Bytes()} {
			binary.Write(&reply, native, v) //nolint:errcheck // a buffer
		}
		unix.Write(fd, reply.Bytes()) //nolint:errcheck // the mount is gone
	}
}
