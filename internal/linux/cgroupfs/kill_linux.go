// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// pause is how long Kill waits for killed processes before it looks again.
const pause = 20 * time.Millisecond

// Kill kills the processes of groups and of all below them, and returns when none is
// left, or with a [BusyError] when the context ends. It thaws what is frozen. Processes
// that fork meanwhile are found in the next round.
//
// The groups are one container's, one in each hierarchy. allowed is asked about each
// process; one that it refuses is left alone and is in the way. It may be nil if
// whatever is in the groups is to go.
func Kill(ctx context.Context, dirs []string, allowed func(*proc.Process) bool) error {
	for {
		var left []int
		var busy string
		for _, dir := range dirs {
			pids, err := killIn(ctx, dir, allowed)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("kill processes of cgroup %s: %w", dir, err)
			}
			if len(pids) > 0 {
				left, busy = pids, dir
			}
		}
		if len(left) == 0 {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return &BusyError{Dir: busy, Processes: left[:min(few, len(left))]}
		case <-time.After(pause):
		}
	}
}

// killIn kills once, and returns the processes that were there.
func killIn(ctx context.Context, dir string, allowed func(*proc.Process) bool) ([]int, error) {
	pids, err := Processes(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(pids) == 0 {
		return nil, err
	}
	if allowed == nil && killAll(dir) == nil {
		return pids, nil
	}
	for some := range slices.Chunk(pids, batch) {
		if err := killSome(ctx, dir, some, allowed); err != nil {
			return pids, err
		}
	}
	return pids, Thaw(ctx, dir)
}

// killAll kills the whole tree at once (version 2, Linux 5.14).
func killAll(dir string) error {
	top, err := open(dir)
	if err != nil {
		return err
	}
	defer top.Close()
	return write(int(top.Fd()), ".", "cgroup.kill", "1")
}

// batch is how many processes are held at a time.
const batch = 256

// killSome kills those of the processes that are in the group while they are held: a
// pid that was read before may be another process's by now.
func killSome(ctx context.Context, dir string, pids []int, allowed func(*proc.Process) bool) error {
	var held []*proc.Process
	defer func() {
		for _, p := range held {
			p.Close() //nolint:errcheck // nothing is written to it
		}
	}()
	for _, pid := range pids {
		if pid == 0 || pid == os.Getpid() {
			continue
		}
		p, err := proc.Open(pid)
		if errors.Is(err, proc.ErrEnded) {
			continue
		}
		if err != nil {
			return err
		}
		held = append(held, p)
	}
	members, err := Processes(ctx, dir)
	if err != nil {
		return err
	}
	for _, p := range held {
		if !slices.Contains(members, p.PID()) || allowed != nil && !allowed(p) {
			continue
		}
		if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, proc.ErrEnded) {
			return err
		}
	}
	return nil
}
