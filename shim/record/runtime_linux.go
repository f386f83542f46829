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
)

// runtimeTimeout bounds the runtime's delete. containerd gives `delete` of a shim
// 5 s in all.
const runtimeTimeout = 4 * time.Second

// StopRuntime ends the container's processes, and makes the runtime forget the
// container, if it has state of it. It needs no bundle: containerd may be removing that at the same time. What
// the runtime keeps decides whether it has succeeded, since in a shim somebody
// else collects its exit status.
func (r *Record) StopRuntime(ctx context.Context) error {
	root := filepath.Join(r.Runtime.Root, r.Namespace)
	has := func() bool {
		_, err := os.Lstat(filepath.Join(root, r.ID))
		return !errors.Is(err, fs.ErrNotExist)
	}
	// First, since the runtime neither ends a process that is frozen in a group below
	// the container's, nor removes groups whose path is too long.
	err := r.killAll(ctx)
	if tolerable(err) {
		err = nil
	}
	err = errors.Join(err, r.EmptyCgroups(ctx))
	if r.Runtime.Root == "" || !has() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeTimeout)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, r.Runtime.Path, "--root", root, "delete", "--force", r.ID)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = "/", &said, &said, time.Second
	err = cmd.Run()
	if !has() {
		return nil
	}
	if err == nil {
		err = errors.New("its state is still there")
	}
	return fmt.Errorf("%s delete --force %q: %w: %s", r.Runtime.Path, r.ID, err, bytes.TrimSpace(said.Bytes()))
}
