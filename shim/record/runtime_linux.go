// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/isolate-shim/isolate/shim/temporary"
)

// runtimeTimeout bounds the runtime's delete. containerd gives `delete` of a shim 5 s
// in all.
const runtimeTimeout = 3 * time.Second

// StopRuntime makes the runtime forget the container, if it has state of it. The
// container's processes have ended: package ending sees to that. It needs no bundle:
// containerd may be removing that at the same time. What the runtime keeps decides
// whether it has succeeded, since in a shim somebody else collects its exit status.
//
// What the runtime cannot do, or may not since its state names somebody else, is done
// without it: what it keeps of a container is in the way of the next one of that id.
func (r *Record) StopRuntime(ctx context.Context) error {
	// First, since the runtime does not remove groups whose path is too long.
	err := r.EmptyCgroups(ctx)
	if r.Runtime.Root == "" || !r.Stateful() {
		return err
	}
	why := r.Stated()
	if why == nil {
		why = r.deleteByRuntime(ctx)
	}
	if why == nil {
		return err
	}
	return errors.Join(err, r.deleteByHand(ctx, why))
}

func (r *Record) stateDir() string { return filepath.Join(r.Runtime.Root, r.Namespace, r.ID) }

// Stateful tells whether the runtime has state of the container.
func (r *Record) Stateful() bool {
	_, err := os.Lstat(r.stateDir())
	return !errors.Is(err, fs.ErrNotExist)
}

func (r *Record) deleteByRuntime(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, r.Runtime.Path, "--root", filepath.Dir(r.stateDir()), "delete", "--force", r.ID)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &said, &said, time.Second
	cmd.Env = temporary.Environ(os.Environ())
	err := cmd.Run()
	if !r.Stateful() {
		return nil
	}
	if err == nil {
		err = errors.New("its state is still there")
	}
	return fmt.Errorf("%s delete --force %q: %w: %s", r.Runtime.Path, r.ID, err, bytes.TrimSpace(said.Bytes()))
}
