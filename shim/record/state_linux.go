// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
)

// Stated proves the process that the runtime's own state names as the container's
// first one. After an error the runtime must not be asked to do anything to the
// container: that is done to a process that is not the container's. A process that was proved when the container was made stays proved:
// the runtime knows it by its start time as well.
func (r *Record) Stated() error {
	dir := r.stateDir()
	for _, name := range stateFiles {
		state, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		pid, err := statedPID(state)
		if err := errors.Join(err, state.Close()); err != nil {
			return err
		}
		return r.proves(pid)
	}
	return nil // it was interrupted before it knew any process
}

func (r *Record) proves(pid int) error {
	if r.Init != nil && r.Init.PID == pid {
		alive, err := r.Init.Alive()
		if alive || err != nil {
			return err
		}
		if p, err := proc.Open(pid); err == nil {
			return errors.Join(fmt.Errorf("process %d is a later one", pid), p.Close())
		}
		return nil
	}
	p, err := member.Verify(pid, r.Member())
	if err != nil {
		return err
	}
	return p.Close()
}

// deleteByHand removes what the runtime keeps.
func (r *Record) deleteByHand(ctx context.Context, why error) error {
	log.G(ctx).WithError(why).WithField("id", r.ID).Warnf("isolate: container %q is removed without its runtime", r.ID)
	if err := os.RemoveAll(r.stateDir()); err != nil {
		return fmt.Errorf("remove container %q without its runtime: %w", r.ID, err)
	}
	return nil
}
