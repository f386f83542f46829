// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/record"
)

// lockID reserves an id while its container is made or undone: others may still be
// undoing an earlier one.
func lockID(ctx context.Context, namespace, id string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, earlierTimeout)
	defer cancel()
	return record.Lock(ctx, namespace, id)
}

// earlierTimeout bounds how long the end of an earlier container may take.
const earlierTimeout = 10 * time.Second

// endEarlier ends and undoes what is left of an earlier container with this id: its
// shim was killed, and `delete` could not end it in the 5 s that containerd gives it.
// containerd uses an id again when it has done with the earlier container. A container
// of another containerd has another bundle, and is left alone while it lives.
func endEarlier(ctx context.Context, namespace, id, bundle string) error {
	r, err := record.Load(namespace, id)
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	if err != nil {
		// It is replaced, and never stands in the way of an id.
		log.G(ctx).WithError(err).Warn("isolate: what is left of an earlier container is not known")
		return nil
	}
	other, err := ofAnother(r, bundle)
	if err != nil {
		return err
	}
	if other {
		return fmt.Errorf("container %q in namespace %q runs already, for another containerd (bundle %q): use another id or namespace: %w", id, namespace, r.Bundle, errdefs.ErrAlreadyExists)
	}
	alive, left := ending.Undo(ctx, r, earlierTimeout)
	if left != nil {
		log.G(ctx).WithError(left).Warn("isolate: what an earlier container of this id has left behind")
	}
	if alive != nil {
		return fmt.Errorf("an earlier container with the id %q has not ended, try again later or use another id: %w", id, alive)
	}
	return nil
}

// ofAnother tells whether a container belongs to another containerd, and lives.
func ofAnother(r *record.Record, bundle string) (bool, error) {
	if r.Bundle == bundle || r.Init == nil {
		return false, nil
	}
	if _, err := os.Lstat(r.Bundle); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return r.Init.Alive()
}
