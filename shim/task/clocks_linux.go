// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/isolate-shim/isolate/internal/linux/timens"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/spec"
)

// pendingClocks waits for a time namespace that is being made; nil if none is.
type pendingClocks func() (*timens.Namespace, error)

// startClocks begins to make the container's time namespace, beside the mounts.
func (c *creation) startClocks(context.Context) error {
	planned := plan.ClocksOf(c.asked(), &c.plan)
	if planned == nil {
		return nil
	}
	c.clocks = sync.OnceValues(func() (*timens.Namespace, error) { return newClocks(*planned, c.userns) })
	go c.clocks() //nolint:errcheck // for who waits
	return nil
}

// joinClocks plans to join what startClocks has made.
func (c *creation) joinClocks(ctx context.Context) error {
	if c.clocks == nil {
		return nil
	}
	made, err := c.clocks()
	switch {
	case err != nil && spec.AskedClocks(c.doc.Spec) != nil:
		return fmt.Errorf("linux.timeOffsets: %w", err)
	case err != nil && !errors.Is(err, timens.ErrUnsupported):
		c.warn(ctx, fmt.Sprintf("start times of processes count from the host's boot, and do not fit lxcfs' uptime: %v", err))
	case made != nil:
		c.plan.Timens = made.Path()
	}
	return nil
}

// release lets go of the namespace, which the runtime has joined or will not.
func (p pendingClocks) release() {
	if p == nil {
		return
	}
	if made, _ := p(); made != nil { // the error is joinClocks'
		go made.Close() //nolint:errcheck // its process is killed
	}
}

// newClocks makes a time namespace. made is the user namespace that the shim has made
// for the container, nil if the container joins one.
func newClocks(c plan.Clocks, made *userns.Namespace) (*timens.Namespace, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	o, err := timens.FromNow()
	if err != nil {
		return nil, err
	}
	if c.Asked != nil {
		o = timens.Offsets{Boottime: timens.Offset(c.Asked["boottime"]), Monotonic: timens.Offset(c.Asked["monotonic"])}
	}
	if made != nil {
		return timens.Of(made.Holder, o)
	}
	f, err := os.Open(c.Userns)
	if err != nil {
		return nil, err
	}
	n, err := timens.New(f, o)
	return n, errors.Join(err, f.Close())
}

// forContainer are the files that the container gets of those that lxcfs serves.
func (c *container) forContainer(files []lxcfs.File) []lxcfs.File {
	withheld := plan.Withheld(&c.plan)
	if len(withheld) == 0 {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), func(f lxcfs.File) bool { return slices.Contains(withheld, f.Name) })
}
