// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Operations of FUSE (linux/fuse.h).
const (
	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseStatfs      = 17
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42
)

// silent is a mounted file system whose root is there, and whose server never answers
// when a file is looked up in it.
type silent struct {
	dir    string
	asked  chan struct{} // closed with the first such question
	abort  func()        // ends the server, and with it everybody's wait
	server *os.File
}

func mountSilent(t *testing.T) *silent {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &silent{dir: shortDir(t), asked: make(chan struct{})}
	if err := unix.Mount("silent", s.dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd)); err != nil {
		t.Fatal(err)
	}
	// Not before: nothing would wake the reader then.
	s.server = os.NewFile(uintptr(fd), "/dev/fuse")
	s.abort = sync.OnceFunc(func() { s.server.Close() })
	t.Cleanup(func() {
		s.abort()
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	go s.serve()
	return s
}

func (s *silent) serve() {
	asked := sync.OnceFunc(func() { close(s.asked) })
	request := make([]byte, 1<<17)
	for {
		n, err := s.server.Read(request)
		if err != nil {
			return
		}
		var body []byte
		code := unix.Errno(0)
		switch operation := binary.NativeEndian.Uint32(request[4:n]); operation {
		case fuseLookup:
			asked()
			continue
		case fuseForget, fuseBatchForget, fuseInterrupt:
			continue
		case fuseInit:
			body = make([]byte, 64)
			binary.NativeEndian.PutUint32(body, 7)
			binary.NativeEndian.PutUint32(body[4:], 31)
			binary.NativeEndian.PutUint32(body[20:], 4096) // max_write
		case fuseGetattr:
			body = make([]byte, 104)
			binary.NativeEndian.PutUint64(body, 1)                       // seconds it is valid
			binary.NativeEndian.PutUint64(body[16:], 1)                  // inode
			binary.NativeEndian.PutUint32(body[76:], unix.S_IFDIR|0o755) // mode
			binary.NativeEndian.PutUint32(body[80:], 2)                  // links
		case fuseStatfs:
			body = make([]byte, 80)
		default:
			code = unix.ENOSYS
		}
		answer := make([]byte, 16, 16+len(body))
		binary.NativeEndian.PutUint32(answer, uint32(16+len(body)))
		binary.NativeEndian.PutUint32(answer[4:], uint32(-int32(code)))
		copy(answer[8:16], request[8:16]) // which question it is
		if _, err := s.server.Write(append(answer, body...)); err != nil {
			return
		}
	}
}
