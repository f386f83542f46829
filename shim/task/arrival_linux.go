// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"

	"github.com/isolate-shim/isolate/shim/arrival"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// awaitPrograms looks out for programs that are installed later and want a store, from
// before the container's own program starts.
func (c *creation) awaitPrograms(ctx context.Context) {
	owner, ok := c.plan.Mapping.Root()
	if !ok || !c.getsStores() {
		return
	}
	a := arrival.Container{
		Init: c.init, Mapped: c.snapshot == nil && c.mapsRootfs(),
		Shelf: stage.Shelf{Kernel: c.service.kernel, Rootfs: c.record.RootfsDir(), Upper: c.upper, Owner: owner},
	}
	for _, path := range stage.StorePaths() {
		if c.plan.Nesting.Stores[path] == "" && !spec.Covered(c.doc.Spec, path) {
			a.Stores = append(a.Stores, path)
		}
	}
	c.arrivals = arrival.Start(detached(ctx), a)
	c.shelves.Store(&a)
}
