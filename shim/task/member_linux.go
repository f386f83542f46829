// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"

	"github.com/isolate-shim/isolate/shim/member"
)

// verify proves that the process that a runtime has reported is the container's
// first one, and is as it was planned.
func (c *container) verify(pid int) error {
	p, err := member.Verify(pid, c.record.Member())
	if err != nil {
		return fmt.Errorf("first process of container %q: %w", c.id, err)
	}
	c.init = p
	c.record.Verified(p)
	if err := p.Confined(c.ownPIDs); err != nil {
		return fmt.Errorf("container %q is not as it was planned: %w", c.id, err)
	}
	return nil
}
