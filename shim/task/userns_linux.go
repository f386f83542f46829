// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/spec"
)

// makeUserns makes the user namespace of a container that joins none, and returns
// what holds it until the runtime has joined it; nil for none. The runtime would
// make it too, but as root: what the container uses would count as the host's
// root's (idmap.NewContainerUserns). CRIU makes that of a restored container.
func (c *container) makeUserns(ctx context.Context, s *specs.Spec, restored bool) (*idmap.ContainerUserns, error) {
	if c.plan.Userns != "" {
		return nil, nil
	}
	if n := spec.Namespace(s, specs.UserNamespace); n != nil && n.Path != "" && !c.plan.Apart {
		return nil, nil
	}
	const loss = "inotify watches, pending signals and namespaces of the container count as root's on the host"
	if restored {
		c.warn(ctx, loss+": CRIU has made the user namespace")
		return nil, nil
	}
	userns, err := idmap.NewContainerUserns(c.plan.Mapping)
	if err != nil {
		c.warn(ctx, fmt.Sprintf("%s: %v", loss, err))
		return nil, nil
	}
	id, err := ns.Of(userns.File)
	if err != nil {
		return nil, errors.Join(err, userns.Close())
	}
	c.record.Userns = &id
	c.plan.Userns = userns.Path()
	return userns, nil
}
