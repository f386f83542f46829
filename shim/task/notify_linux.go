// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"

	"github.com/isolate-shim/isolate/shim/cgroup"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/notify"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// startNotifier makes the containers inside this one see its limits: pivot_root, which
// an inner runtime calls once for each, is reported to the shim, which puts the
// files of lxcfs over the inner /proc, and so is sysinfo(2), which it answers as those files
// do. Without lxcfs there is nothing to show, and nothing is reported; one that is dead may
// be there again when it is asked for.
//
// It does not wait for the probe, which goes on while the runtime makes the container.
//
// Whatever stands in the way costs these views only, and is a warning.
func (c *creation) startNotifier(ctx context.Context) {
	var calls []string
	if plan.ShowsInner(&c.plan, c.cfg) {
		calls = append(calls, notify.PivotRoot)
	}
	if plan.AnswersSysinfo(&c.plan, c.cfg) {
		calls = append(calls, notify.Sysinfo)
	}
	if len(calls) > 0 && c.getsStores() {
		calls = append(calls, notify.Mount)
	}
	if len(calls) == 0 || !c.probe.Mounted() { // attachFiles tells the second
		return
	}
	err := notify.Probe()
	if err == nil {
		err = notify.Runtime(c.bin.Features)
	}
	var reported []string
	if err == nil {
		reported, err = c.listen(ctx, calls)
	}
	losses := map[string]string{
		notify.PivotRoot: "containers inside see the host's resources",
		notify.Sysinfo:   "sysinfo(2) tells of the host",
	}
	for _, call := range calls {
		if losses[call] != "" && !slices.Contains(reported, call) {
			reason := err
			if err == nil {
				reason = notify.ErrDenied
			}
			c.warn(ctx, fmt.Sprintf("%s: %v", losses[call], reason))
		}
	}
}

// listen starts to listen for reports, and has the seccomp profile make them. It returns
// which calls are reported.
func (c *creation) listen(ctx context.Context, calls []string) ([]string, error) {
	path := c.record.ListenerPath()
	profile, calls, err := notify.Profile(c.doc.Spec.Linux.Seccomp, path, goruntime.GOARCH, calls...)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create directory of listeners: %w", err)
	}
	// They live as long as the container, and must not hold the creation.
	made, cfg := c.container, c.cfg.LXCFS
	views := func(ctx context.Context) ([]lxcfs.File, error) { return made.innerViews(ctx, cfg) }
	processors := func() float64 { return cgroup.Processors(made.cgroups) }
	shelve := func(o notify.Overlay) error {
		if shelves := made.shelves.Load(); shelves != nil {
			return shelves.Shelve(o)
		}
		return nil
	}
	share := func(pid int) error {
		if quota := cgroup.ShareOf(made.cgroups); quota != nil {
			return quota.With(pid)
		}
		return nil
	}
	if c.notifier, err = notify.Listen(ctx, path, views, sysinfo.New().Of, shelve, share, processors); err != nil {
		return nil, err
	}
	c.doc.Spec.Linux.Seccomp = profile
	return calls, nil
}

// innerViews looks at lxcfs anew: it may have been restarted since.
func (c *container) innerViews(ctx context.Context, cfg config.LXCFS) ([]lxcfs.File, error) {
	// The probe is not closed: its files are the notifier's from here on, and its
	// deadline ends the rest.
	served, err := lxcfs.StartProbe(ctx, cfg).Result()
	if err != nil {
		return nil, err
	}
	files := c.forContainer(served.Files)
	for _, f := range served.Files {
		if !slices.Contains(files, f) {
			f.Mount.Close()
		}
	}
	return files, nil
}
