// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
)

// TestStoresOfAMappingCaller runs Docker in a container whose caller has mapped
// its ids, as Kubernetes does for hostUsers: false. It fell back to fuse-overlayfs
// or vfs, since only layers that the shim had mapped itself had stores.
func TestStoresOfAMappingCaller(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		mapped := []string{"--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536", "--remap-labels", "--memory-limit", "1073741824"}
		c := start(t, n, image.Docker20, slices.Concat(inner(t), mapped), "dockerd")
		c.await(t, "docker version")
		c.expect(t, "200000", "awk '{print $2}' /proc/self/uid_map")
		c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
		// What the image has there is there, with its owners.
		c.expect(t, "of the image 1000:33", "cd /var/lib/docker/of-the-image && echo $(cat note) $(stat -c %u:%g link)")
		c.sh(t, "docker load -i /inner.tar && docker run -d --name kept "+innerReference+" sleep 1000")
		c.expect(t, "second", "docker exec kept cat /layer")
		// It is in the container's own layer, by the ids of the host.
		info, err := os.Stat(filepath.Join(c.upper(t), "var/lib/docker/overlay2"))
		if err != nil {
			t.Fatal(err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != 200000 {
			t.Errorf("on the disk it belongs to %+v", info.Sys())
		}
	})
}
