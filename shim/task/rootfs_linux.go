// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/stage"
)

// snapshots holds the states of rootfs whose ids were moved on disk.
var snapshots = chown.NewStore(chown.Dir)

// methods are the configuration's names for ways to build an overlay; "chown" is
// none of them.
var methods = map[config.Choice]idmap.Method{
	config.RootfsAuto:     idmap.MethodAuto,
	config.RootfsDetached: idmap.MethodDetached,
	config.RootfsPrivate:  idmap.MethodPrivate,
}

func (c *container) rootfsOptions(ctx context.Context, cfg config.Config) stage.RootfsOptions {
	return stage.RootfsOptions{
		Method: methods[cfg.Rootfs.Method],
		NoDev:  cfg.Nesting == config.NestingOff,
		Chown:  chownPolicy(cfg.Rootfs),
		Store:  snapshots,
		Owner:  c.record.Namespace + "/" + c.id,
		Alive:  alive,
		Warn:   func(warnings ...string) { c.warn(ctx, warnings...) },
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
