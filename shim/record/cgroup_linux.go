// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

const (
	// A process that was killed is in its cgroup until it is gone: for milliseconds,
	// unless the machine is very busy.
	cgroupPause    = 20 * time.Millisecond
	cgroupPatience = 500 * time.Millisecond
	// removeTimeout bounds the removal of groups, of which a container can make
	// thousands; each takes about 0.1 ms. What is left is removed by the next try.
	removeTimeout = 30 * time.Second
)

// made are the groups that were made for this container.
func (r *Record) made() []string {
	return slices.DeleteFunc(slices.Clone(r.Cgroups), func(dir string) bool { return slices.Contains(r.Premade, dir) })
}

// owns tells whether a user of the host is one of the container's.
func (r *Record) owns(uid uint32) bool {
	_, ok := r.Mapping.UIDToContainer(idmap.HostID(uid))
	return ok
}

// EmptyCgroups removes the groups that the container has made below its own. The
// runtime would do that by path, which fails where the path is too long. The
// container's first process must have ended. Groups in use stay.
func (r *Record) EmptyCgroups(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	var errs []error
	for _, dir := range r.Cgroups {
		owner := func(uint32) bool { return true }
		if slices.Contains(r.Premade, dir) {
			owner = r.owns
		}
		if err := cgroupfs.RemoveBelow(ctx, dir, owner); !tolerable(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the cgroups that were made for the container, and those below.
// The runtime does that for every container that it knows; one that was killed while it
// created a container leaves cgroups of which it knows nothing.
func (r *Record) removeCgroups() error {
	errs := []error{r.EmptyCgroups(context.Background())}
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	deadline := time.Now().Add(cgroupPatience)
	for _, dir := range r.made() {
		err := cgroupfs.Remove(ctx, dir)
		for errors.Is(err, unix.EBUSY) && time.Now().Before(deadline) {
			time.Sleep(cgroupPause)
			err = cgroupfs.Remove(ctx, dir)
		}
		if !tolerable(err) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cgroups of container %q: %w", r.ID, err)
	}
	return nil
}

// tolerable tells errors that do not count. A group in use stays: somebody may have put
// a process there. Records of earlier versions name directories that are no groups.
func tolerable(err error) bool {
	return err == nil || errors.Is(err, unix.EBUSY) || errors.Is(err, cgroupfs.ErrNotGroup)
}
