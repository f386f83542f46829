// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"strings"

	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/stage"
)

// snapshots holds the states of rootfs whose ids were moved on disk.
var snapshots = chown.NewStore(chown.Dir)

// methods are the configuration's names for ways to build an overlay; "chown" is
// none of them.
var methods = map[config.Choice]rootfs.Method{
	config.RootfsAuto:     rootfs.MethodAuto,
	config.RootfsDetached: rootfs.MethodDetached,
	config.RootfsPrivate:  rootfs.MethodPrivate,
}

// mapsRootfs tells whether the shim maps the rootfs.
func (c *creation) mapsRootfs() bool {
	return plan.MapsRootfs(c.plan.Mode, c.sandbox, c.source.Adopted())
}

// mountRootfs mounts the rootfs where the runtime is to find it, and returns its path.
// A rootfs that the caller has prepared stays where it is.
func (c *creation) mountRootfs(ctx context.Context, st *stage.Stage) (path string, err error) {
	if !c.record.Rootfs {
		return rootfsDir(c.request.Bundle, c.doc.Spec), nil
	}
	c.plan.Rootfs = c.record.RootfsDir()
	c.upper = c.source.Upper()
	if !c.mapsRootfs() {
		return c.plan.Rootfs, st.PlainRootfs(c.source, c.plan.Rootfs)
	}
	if c.premounted != nil {
		c.upper = c.premounted.Upper()
	}
	c.snapshot, err = st.Rootfs(ctx, c.source, c.plan.Rootfs, c.plan.Mapping, c.rootfsOptions(ctx))
	c.sealed = c.doc.Spec.Root.Readonly && c.upper != ""
	return c.plan.Rootfs, err
}

func (c *creation) rootfsOptions(ctx context.Context) stage.RootfsOptions {
	return stage.RootfsOptions{
		Method:     methods[c.cfg.Rootfs.Method],
		NoDev:      c.cfg.Nesting == config.NestingOff,
		Premounted: c.premounted, Replacement: (*rootfs.Replacement)(c.record.Premounted),
		Chown: chownPolicy(c.cfg.Rootfs),
		Store: snapshots,
		Owner: c.record.Namespace + "/" + c.id,
		Alive: alive,
		Warn:  func(warnings ...string) { c.warn(ctx, warnings...) },
	}
}

func chownPolicy(r config.Rootfs) stage.ChownPolicy {
	switch {
	case r.Method == config.RootfsChown:
		return stage.ChownAlways
	case r.Fallback == config.FallbackChown:
		return stage.ChownFallback
	default:
		return stage.ChownNever
	}
}

// alive tells whether a container ("namespace/id") runs, as far as its record
// says. One that is still being made holds a lock.
func alive(owner string) bool {
	ns, id, _ := strings.Cut(owner, "/")
	r, err := record.Load(ns, id)
	if err != nil || r.Init == nil {
		return false
	}
	running, err := r.Init.Alive()
	return running || err != nil
}
