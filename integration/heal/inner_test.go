// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestHealInner has Docker in a container: what runs in there is healed, and what
// is started there later shows the limits again.
func TestHealInner(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Runc15, 1)
	server := rig.LxcfsFor(t, peer.Lxcfs5, dir)
	inner, err := image.Get(t.Context(), image.Inner)
	if err != nil {
		t.Fatal(err)
	}
	h.Ctr(t.Context(), "run", "-d", "--null-io", "--runtime", shimName, "--memory-limit", limit,
		"--mount", "type=bind,src="+inner.Path+",dst=/inner.tar,options=rbind:ro", h.Image(t, image.Docker26), "d", "dockerd").Must(t)
	d := h.container(t, "d")
	d.exec(t, "for i in $(seq 600); do docker info >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1").Must(t)
	reference := strings.TrimSpace(d.exec(t, "docker load -q -i /inner.tar | sed 's/^Loaded image: //'").Must(t))
	d.exec(t, "docker run -d --name web --network none "+reference+" sleep 86200").Must(t)
	pid := 0
	rig.Eventually(t, "inner process", func() bool { pid = processOf(t, "sleep 86200"); return pid != 0 })
	all := len(files(t, pid))
	if all == 0 {
		t.Fatal("the inner container has no files of lxcfs")
	}
	// In the limits of the outer container, whatever is in the way of the inner's.
	const look = "docker exec web head -n1 /proc/meminfo"
	d.sees(t, look, shown)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, d.pid, 0)
	until(t, pid, 0)
	d.sees(t, look, hostTotal(t))
	d.sees(t, "docker run --rm --network none "+reference+" head -n1 /proc/meminfo", hostTotal(t))
	unmount(t)
	again := rig.LxcfsFor(t, peer.Lxcfs5, dir)
	until(t, pid, all)
	d.sees(t, look, shown)
	d.sees(t, "docker run --rm --network none "+reference+" head -n1 /proc/meminfo", shown)
	// A server that hangs is taken off too, and then holds up nothing that is started.
	if err := again.Stop(); err != nil {
		t.Fatal(err)
	}
	until(t, d.pid, 0)
	until(t, pid, 0)
	begin := time.Now()
	d.sees(t, "docker run --rm --network none "+reference+" head -n1 /proc/meminfo", hostTotal(t))
	t.Logf("docker run has taken %v beside an lxcfs that hangs", time.Since(begin).Round(10*time.Millisecond))
	if err := again.Cont(); err != nil {
		t.Fatal(err)
	}
	until(t, pid, all)
	d.sees(t, look, shown)
	d.remove(t)
}
