// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/spec"
)

// setNetSysctls sets the sysctls of a network namespace that the container's root
// may use but not administer: the namespace of a pod that is not mapped. The runtime
// could not set them from inside the container's user namespace. CRI sends two for every
// pod, and without them nobody in it could listen on a port below 1024, or ping.
//
// The host's own network namespace is left alone, as every runtime does.
func (c *creation) setNetSysctls(context.Context) error {
	s := c.doc.Spec
	want := spec.NetSysctls(s, c.plan.Decision)
	n := spec.Namespace(s, specs.NetworkNamespace)
	if len(want) == 0 || n == nil {
		return nil
	}
	theirs, err := os.Open(n.Path)
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	defer theirs.Close()
	id, err := ns.Of(theirs)
	if err != nil {
		return err
	}
	if own, err := ns.Own("net"); err != nil || id == own {
		return err
	}
	err = thread.InNetwork(theirs, func() error {
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if err := writeSysctl(key, want[key]); err != nil {
				return err
			}
		}
		return nil
	})
	c.plan.NetSysctlsSet = err == nil
	return err
}

// writeSysctl writes a sysctl below net.
func writeSysctl(key, value string) error {
	file, err := plan.NetSysctlFile(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", key, err)
	}
	return nil
}
