// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/internal/linux/timens"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/spec"
)

// uptimeFile is the file of lxcfs that a time namespace makes unnecessary. Both
// together contradict each other: programs subtract start times, which count from
// the namespace's zero or the host's, from an uptime that is the container's age.
const uptimeFile = "proc/uptime"

// ownClocks plans clocks that begin with the container, where kernel and runtime
// can and the administrator wants the container to see its own.
func (c *container) ownClocks(ctx context.Context, s *specs.Spec, cfg config.Config, bin runtime.Binary) {
	if cfg.LXCFS.Mode == config.LXCFSOff || !bin.TimeOffsets() || !spec.OwnClocks(s) {
		return
	}
	o, err := timens.FromNow()
	switch {
	case err == nil:
		c.plan.Clocks = &spec.Clocks{Boottime: o.Boottime, Monotonic: o.Monotonic}
	case !errors.Is(err, timens.ErrUnsupported):
		c.warn(ctx, fmt.Sprintf("the uptime is the host's: %v", err))
	}
}

// forContainer are the files that the container gets of those that lxcfs serves.
func (c *container) forContainer(files []lxcfs.File) []lxcfs.File {
	if c.plan.Clocks == nil {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), func(f lxcfs.File) bool { return f.Name == uptimeFile })
}
