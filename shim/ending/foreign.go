// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/fusectl"
	"github.com/isolate-shim/isolate/internal/linux/ns"
)

// connections tells which FUSE connections are the container's.
//
// The owner of a connection is the user_id of its mount. The kernel demands that the
// user namespace of the process that mounts maps it. So a connection whose owner has an
// id of the container was mounted in the container's user namespace or below it: no
// other namespace maps ids of a range that isolate leases. It cannot belong to a
// neighbour or to the host (lxcfs). The container's root can pass descriptors of its
// mounts to others, and have others serve them, but it cannot make another's mount its
// own.
//
// Only the host's root can mount with any user_id. Connections that show in the host's
// mount namespace are therefore left alone; no mount of a container gets there.
//
// Containers of a pod share ids. Connections that show in the mounts of another living
// container of the pod are left alone as well.
//
// Another container can make so many mounts that they cannot be read in time. It must
// neither hold up the end of this one nor lose its connections. So only those are ended
// then that show in this container's mounts, which no mount of the other one gets into:
// mount namespaces of different containers do not propagate to each other. The two would
// have to pass a mount by a descriptor. What this container has detached stays until the
// other one has ended.
type connections struct {
	ids []idmap.Range
	// foreign are the devices that show in mount namespaces of the host or of others.
	foreign map[uint32]bool
	// unread names the others whose mounts could not all be read in time.
	unread []string
	// own are the devices that show in mount namespaces of the container, and of no
	// other. They are looked for only if some are unread.
	own map[uint32]bool
	// seen are the mount namespaces of containers that were looked at.
	seen map[ns.ID]bool
}

// abort tells whether to end a connection. A connection in which no process waits is
// left: its end would help no process.
func (c *connections) abort(f fusectl.Connection) bool {
	if f.Waiting == 0 || c.foreign[f.Device] || len(c.unread) > 0 && !c.own[f.Device] {
		return false
	}
	for _, r := range c.ids {
		if r.Span().Contains(idmap.HostID(f.Owner)) {
			return true
		}
	}
	return false
}
