// SPDX-License-Identifier: Apache-2.0

package disposable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"
)

// The descriptors of a child: its end of the socket, and after it the files that it was
// given.
const (
	SocketFD = 3
	FirstFD  = SocketFD + 1
)

// Grace is how much longer than its parent a child should wait before it ends by itself,
// in case the parent is gone.
const Grace = time.Second

// Child is a disposable child.
type Child struct {
	// Conn is where it answers.
	Conn *net.UnixConn

	cmd   *exec.Cmd
	stop  func() bool
	ended chan struct{}
}

// Start starts a child. The child reads stdin, which may be nil. Once ctx is over,
// nothing more is received from the child. The caller must call Close; it still owns the
// files.
func Start(ctx context.Context, stdin io.Reader, files []*os.File, argv ...string) (*Child, error) {
	conn, theirs, err := SocketPair()
	if err != nil {
		return nil, err
	}
	// Not by exec.CommandContext: its end is bound to the child's.
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // as above
	cmd.Args = argv
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"} // it lives for milliseconds
	cmd.Dir = "/"
	cmd.Stdin = stdin
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	err = cmd.Start()
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start child: %w", err), conn.Close())
	}
	c := &Child{Conn: conn, cmd: cmd, ended: make(chan struct{})}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // fails if closed: over anyway
	go func() {
		_ = cmd.Wait() // its answer is what counts
		close(c.ended)
	}()
	return c, nil
}

// Close kills the child by its pidfd and does not wait for its end: a child that waits
// for a server in the kernel ends only when the server answers or goes away. Another
// part of the program may reap the child; in the shim, containerd's reaper does.
func (c *Child) Close() error {
	c.stop()
	_ = c.cmd.Process.Kill() // it may have ended
	return c.Conn.Close()
}

// Ended is closed when the child has ended.
func (c *Child) Ended() <-chan struct{} { return c.ended }
