// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/feature"
)

// probed is what probes map to: the start of the default pool of ranges. No
// process ever runs with these ids because of a probe.
var probed = idmap.Contiguous(0x70000000, 65536)

// Supported probes whether user namespaces with a mapping can be made:
// kernel configuration, the limit in user.max_user_namespaces and security
// modules.
func Supported() *feature.Probe {
	return &feature.Probe{Name: "user namespaces", Version: "4.15", Fn: func() error {
		ns, err := New(probed)
		if err == nil {
			return ns.Close()
		}
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS, unix.EPERM} {
			if errors.Is(err, errno) {
				return fmt.Errorf("%w: %w", feature.ErrNotSupported, err)
			}
		}
		return err
	}}
}

// Try gives fn a namespace to probe with, whose root is [Root].
func Try(fn func(ns *os.File) error) error {
	ns, err := New(probed)
	if err != nil {
		return err
	}
	return errors.Join(fn(ns), ns.Close())
}

// Root is the root of the namespaces of [Try].
func Root() idmap.Owner {
	root, _ := probed.Root()
	return root
}
