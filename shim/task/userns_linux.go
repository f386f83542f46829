// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/shim/plan"
)

// makeUserns makes the user namespace of a container that joins none, and holds it
// until the runtime has joined it. The runtime would make it too, but as root: what the
// container uses would count as the host's root's (userns.NewOwned). CRIU makes the
// user namespace of a restored container.
func (c *creation) makeUserns(ctx context.Context) error {
	if !plan.MakesUserns(c.doc.Spec, &c.plan) {
		return nil
	}
	const loss = "inotify watches, pending signals and namespaces of the container count as root's on the host"
	if c.asked().Restored {
		c.warn(ctx, loss+": CRIU has made the user namespace")
		return nil
	}
	made, err := userns.NewOwned(c.plan.Mapping)
	if err != nil {
		c.warn(ctx, fmt.Sprintf("%s: %v", loss, err))
		return nil
	}
	id, err := ns.Of(made.File)
	if err != nil {
		return errors.Join(err, made.Close())
	}
	c.record.Userns = &id
	c.plan.Userns = made.Path()
	c.userns = made
	return nil
}
