// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
)

// askerName is argv[0] of the disposable process that asks a server for a sign of
// life.
const askerName = "isolate-lxcfs-ask"

// Alive asks the server of a file, which was opened with O_PATH, for a sign of life,
// in a disposable process. nil means that the server answered, whatever it said;
// otherwise the error is [ErrDead] or [ErrHung], or tells why it could not be asked.
func Alive(ctx context.Context, file *os.File, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := disposable.Start(ctx, nil, []*os.File{file}, askerName, (limit + disposable.Grace).String())
	if err != nil {
		return fmt.Errorf("ask lxcfs: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing was written
	msg, _, err := receive(c.Conn)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		hang(c)
		return ErrHung
	case err != nil:
		return fmt.Errorf("ask lxcfs: %w", errors.Join(err, ctx.Err()))
	case msg.Errno == unix.ENOTCONN || msg.Errno == unix.ECONNABORTED:
		return ErrDead
	}
	return nil
}

// asker is the disposable process: it asks the server for the file's attributes.
func asker(args []string) int {
	if len(args) != 1 {
		return 2
	}
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return 2
	}
	time.AfterFunc(limit, func() { os.Exit(3) }) // as in child
	last := message{End: true}
	var st unix.Statx_t
	if err := unix.Statx(disposable.FirstFD, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		errors.As(err, &last.Errno)
	}
	if err := (&prober{socket: disposable.SocketFD}).send(last, -1); err != nil {
		return 1
	}
	return 0
}
