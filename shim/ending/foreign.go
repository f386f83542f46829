// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/fusectl"
)

// connections tells which FUSE connections are the container's.
//
// The owner of a connection is the user_id of its mount, and the kernel demands
// that it is mapped in the user namespace of whoever mounts. So one whose owner has
// an id of the container's was mounted in the container's user namespace or one
// below it; ids of a range that isolate leases are in no other. It cannot be one
// of a neighbour, or of the host (lxcfs), whatever the container's root does: it
// can pass descriptors of its mounts to others, and have others serve them, but it
// cannot make a mount of others its own.
//
// Root of the host alone can mount with any user_id. What shows in the host's mount
// namespace is therefore left alone; no mount of a container gets there.
//
// Containers of a pod share ids. What shows in the mounts of another one that lives
// is left alone as well.
type connections struct {
	ids []idmap.Range
	// foreign are the devices that show in mount namespaces of others.
	foreign map[uint32]bool
}

// abort tells whether a connection is to be ended. Nobody is helped by the end of
// one that nobody waits in.
func (c connections) abort(f fusectl.Connection) bool {
	if f.Waiting == 0 || c.foreign[f.Device] {
		return false
	}
	for _, r := range c.ids {
		if r.Span().Contains(idmap.HostID(f.Owner)) {
			return true
		}
	}
	return false
}
