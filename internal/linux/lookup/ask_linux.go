// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// ErrNoAnswer means that a file system did not answer in time.
var ErrNoAnswer = errors.New("its file system does not answer")

// Ask opens a path as open_tree(2) does, following links and triggering automounts, and
// makes its file system give a sign of life. If the context ends first, the error is
// [ErrNoAnswer] with the reason. It costs a fork, about a millisecond.
func Ask(ctx context.Context, path string) (_ *os.File, retErr error) {
	fail := func(err error) error { return fmt.Errorf("look up %q: %w", path, err) }
	if len(path) >= unix.PathMax {
		return nil, fail(unix.ENAMETOOLONG)
	}
	ours, theirs, err := disposable.SocketPair()
	if err != nil {
		return nil, fail(err)
	}
	defer ours.Close() //nolint:errcheck // nothing is written to it

	// The child dies with the thread that has made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := newAsker(path, int(theirs.Fd()))
	child, err := fork.Start(0, a.fork)
	if err == nil {
		defer child.Leave()
	}
	err = errors.Join(err, theirs.Close())
	if err != nil {
		return nil, fail(err)
	}
	stop := context.AfterFunc(ctx, func() { ours.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // of a socket it can be set
	defer stop()
	f, err := receive(ours, path)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fail(fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx)))
	}
	if err != nil {
		return nil, fail(err)
	}
	return f, nil
}

// receive takes the answer of the child.
func receive(conn *net.UnixConn, path string) (*os.File, error) {
	data, files, err := disposable.Receive(conn, int(unsafe.Sizeof(answer{})), path)
	if err != nil {
		return nil, err
	}
	said := syscall.Errno((*answer)(unsafe.Pointer(&data[0])).errno) //nolint:gosec // an errno
	if len(files) == 0 {
		return nil, said
	}
	// A file system that denies the question answers at once. FUSE denies it to root if
	// another user has mounted it.
	if said != 0 && said != unix.EACCES {
		files[0].Close()
		return nil, said
	}
	return files[0], nil
}
