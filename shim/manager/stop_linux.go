// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/temporary"
)

// Stop answers `delete`: containerd runs it after every container, also when
// the shim went in good order, and it is on the critical path of a delete.
//
// The runtime is asked to delete only if it still has state for the container.
// That saves one exec (3 ms) in the ordinary case. Whatever the record names is
// undone, and the sockets of a killed shim are removed, which upstream leaves.
func (m manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	debug.SetGCPercent(gcPercent)
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return shim.StopStatus{}, err
	}
	bundle, err := bundleOf(os.Args[1:], id)
	if err != nil {
		return shim.StopStatus{}, err
	}
	// Read now, since after a failed create containerd removes the bundle meanwhile;
	// used last, since a shim that was killed takes a moment to be gone.
	addresses, own := sockets(ctx, bundle, os.Args[1:]), isOwn(bundle)
	status := m.stop(ctx, ns, id, bundle)
	removeStale(ctx, addresses, own)
	if err := temporary.Sweep(record.Root); err != nil {
		log.G(ctx).WithError(err).Warn("isolate: delete")
	}
	return status, nil
}

// bundleOf is the bundle of a container. For those of a pod, containerd may name
// another one's, or start this in its directory; bundles are siblings.
func bundleOf(args []string, id string) (string, error) {
	inv, err := parseInvocation(args)
	if err != nil || inv.bundle == "" {
		if inv.bundle, err = os.Getwd(); err != nil {
			return "", fmt.Errorf("bundle directory: %w", err)
		}
	}
	return filepath.Join(filepath.Dir(inv.bundle), id), nil
}

// stop undoes what the record of a container names. Without one that can be read, that is
// what its bundle tells.
//
// An error here, or to be late, would keep containerd from removing the bundle, and with it from
// using the id again. What could not be undone is a warning, and is tried once more
// by whoever uses the id next, or starts a container.
func (m manager) stop(ctx context.Context, ns, id, bundle string) shim.StopStatus {
	started := time.Now()
	locking, cancel := context.WithDeadline(ctx, started.Add(endTimeout))
	defer cancel()
	if r, _ := find(ctx, ns, id, bundle); r == nil { // the usual end
		if err := record.Drop(locking, ns, id); err != nil {
			log.G(ctx).WithError(err).Warn("isolate: delete")
		}
		return exitOf(ctx, bundle)
	}
	unlock, err := record.Lock(locking, ns, id)
	if err != nil { // a shim that lives undoes it
		log.G(ctx).WithError(err).Warn("isolate: delete")
		return exitOf(ctx, bundle)
	}
	r, err := find(ctx, ns, id, bundle)
	if r == nil {
		unlock()
		return exitOf(ctx, bundle)
	}
	if err != nil {
		log.G(ctx).WithError(err).Warnf("isolate: container %q is cleaned up without its record", id)
	}
	noted := r.Unfinished()
	done := make(chan error, 1)
	go func() {
		alive, left := ending.UndoOrphan(ctx, r, time.Until(started.Add(endTimeout)))
		unlock() // first: this process ends with the answer
		done <- errors.Join(noted, alive, left)
	}()
	select {
	case err = <-done:
	case <-time.After(time.Until(started.Add(stopTimeout))): // what goes on ends with this process
		err = errors.New("that takes longer than containerd waits, and the shim of the next container goes on with it")
	}
	if err != nil {
		log.G(ctx).WithError(err).Warnf("isolate: container %q was not cleaned up in full", id)
	}
	status := exitOf(ctx, bundle)
	if status.Pid == 0 && r.Init != nil {
		status.Pid = r.Init.PID
	}
	return status
}

// find returns the record of a container, or with an error what is to be known
// without it; nil if nothing is left of it.
func find(ctx context.Context, ns, id, bundle string) (*record.Record, error) {
	r, err := record.Load(ns, id)
	if err == nil {
		return r, nil
	}
	r = named(ctx, ns, id, bundle)
	absent := errors.Is(err, record.ErrNotFound)
	if absent && !r.Stateful() {
		return nil, nil //nolint:nilnil // documented
	}
	if absent {
		err = nil
	}
	return salvage(ctx, r), err
}

// containerd gives `delete` 5 s in all, with the start of the process. One that it
// kills leaves the bundle, which is in the way of the next container with that id.
const (
	endTimeout  = 3500 * time.Millisecond // leaves time for the rest
	stopTimeout = 4200 * time.Millisecond
)

// exitOf is how the container ended, as far as its shim wrote that down.
func exitOf(ctx context.Context, bundle string) shim.StopStatus {
	exit, err := runc.ReadExitStatus(bundle)
	if err == nil {
		return shim.StopStatus{ExitedAt: exit.Timestamp, ExitStatus: exit.Status, Pid: exit.Pid}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.G(ctx).WithError(err).Warn("read exit status")
	}
	return shim.StopStatus{ExitedAt: time.Now(), ExitStatus: 128 + int(unix.SIGKILL)}
}
