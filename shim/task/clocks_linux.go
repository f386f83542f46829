// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/internal/linux/timens"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/spec"
)

// uptimeFile is the file of lxcfs that a time namespace makes unnecessary. Both
// together contradict each other: programs subtract start times, which count from
// the namespace's zero or the host's, from an uptime that is the container's age.
const uptimeFile = "proc/uptime"

// pendingClocks waits for a time namespace that is being made; nil if none is.
type pendingClocks func() (*timens.Namespace, error)

// startClocks begins to make the container's time namespace, beside the mounts: with
// the offsets that the caller asks for, or with clocks that begin with the container,
// where kernel and runtime can and the administrator wants the container to see its
// own. A restored process has its clocks from before.
func (c *creation) startClocks(context.Context) error {
	asked := spec.AskedClocks(c.doc.Spec)
	own := c.cfg.LXCFS.Mode != config.LXCFSOff && spec.OwnClocks(c.doc.Spec)
	userns := c.plan.Userns
	if n := spec.Namespace(c.doc.Spec, specs.UserNamespace); userns == "" && n != nil {
		userns = n.Path
	}
	if c.restored() || !c.bin.TimeNamespaces() || asked == nil && !own || userns == "" { // then the runtime makes both
		return nil
	}
	c.clocks = sync.OnceValues(func() (*timens.Namespace, error) { return newClocks(userns, asked) })
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

// newClocks makes a time namespace that belongs to the user namespace at a path.
func newClocks(userns string, asked map[string]specs.LinuxTimeOffset) (*timens.Namespace, error) {
	for clock := range asked {
		if clock != "boottime" && clock != "monotonic" {
			return nil, fmt.Errorf("there is no clock %q: %w", clock, spec.ErrRefused)
		}
	}
	o, err := timens.FromNow()
	if err != nil {
		return nil, err
	}
	if asked != nil {
		o = timens.Offsets{Boottime: timens.Offset(asked["boottime"]), Monotonic: timens.Offset(asked["monotonic"])}
	}
	f, err := os.Open(userns)
	if err != nil {
		return nil, err
	}
	made, err := timens.New(f, o)
	return made, errors.Join(err, f.Close())
}

// forContainer are the files that the container gets of those that lxcfs serves.
func (c *container) forContainer(files []lxcfs.File) []lxcfs.File {
	if c.plan.Timens == "" {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), func(f lxcfs.File) bool { return f.Name == uptimeFile })
}
