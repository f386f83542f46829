// SPDX-License-Identifier: Apache-2.0

package disposable

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SocketPair returns the two ends of a connection: the parent's and the child's.
func SocketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("socketpair is a %T", conn), conn.Close(), theirs.Close())
	}
	return unixConn, theirs, nil
}

// Receive receives one message of at most size bytes, and at most four files that come
// with it. The files get that name.
func Receive(conn *net.UnixConn, size int, name string) ([]byte, []*os.File, error) {
	data, oob := make([]byte, size), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, nil, err
	}
	fds, err := Descriptors(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	switch {
	case n == 0 && len(files) == 0:
		return nil, nil, fmt.Errorf("the child ended early: %w", io.ErrUnexpectedEOF)
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		for _, f := range files {
			_ = f.Close() // of a message that is refused
		}
		return nil, nil, errors.New("the message was cut off: it is larger than expected or has too many files")
	}
	return data[:n], files, nil
}

// Send sends a message, with a descriptor unless that is negative.
func Send(socket int, data []byte, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if err := unix.Sendmsg(socket, data, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Descriptors returns the descriptors in control messages. Go receives them with
// MSG_CMSG_CLOEXEC.
func Descriptors(oob []byte) (fds []int, _ error) {
	if len(oob) == 0 {
		return nil, nil
	}
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	for _, c := range controls {
		if more, err := unix.ParseUnixRights(&c); err == nil { // else not descriptors
			fds = append(fds, more...)
		}
	}
	return fds, nil
}
