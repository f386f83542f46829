// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

// groupPatience bounds a look at groups, of which a container can make very many.
const groupPatience = 2 * time.Second

// inUse tells what still uses the range of a record, "" for nothing. If it cannot
// find out, the range counts as used.
func (r record) inUse(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, groupPatience)
	defer cancel()
	if why := r.initInUse(ctx); why != "" {
		return why
	}
	for _, dir := range r.cgroups {
		if populated, err := cgroupfs.Populated(ctx, dir); errors.Is(err, cgroupfs.ErrNotGroup) {
			continue // the hierarchy is no longer mounted, and its directory is left
		} else if err != nil {
			return fmt.Sprintf("cannot tell whether cgroup %q is empty: %v", dir, err)
		} else if populated {
			return fmt.Sprintf("cgroup %q has processes", dir)
		}
	}
	return ""
}

// initInUse tells which of the first processes still uses the range, "" for none.
func (r record) initInUse(context.Context) string {
	for _, p := range r.inits {
		if alive, err := p.Alive(); err != nil {
			return fmt.Sprintf("cannot tell whether process %d is alive: %v", p.PID, err)
		} else if alive {
			return fmt.Sprintf("process %d is alive", p.PID)
		}
	}
	return ""
}
