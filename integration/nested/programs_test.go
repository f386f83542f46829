// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/programs"
	"github.com/isolate-shim/isolate/integration/rig"
)

// setQuota gives a container a CPU quota.
func setQuota(t *testing.T, c *container, processors float64) {
	t.Helper()
	period := uint64(100000)
	time := int64(processors * float64(period))
	c.node.Container(c.id).Update(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &time, Period: &period}})
}

// systemdPrograms runs programs that look at the machine, in the container and in each
// kind of container inside, and prints who sees what. Its CPU quota comes with an update.
func systemdPrograms(t *testing.T, c *container) {
	quota := func(processors float64) { setQuota(t, c, processors) }
	quota(1)
	c.sh(t, "cat >/usr/local/bin/ask <<'EOF'\n"+programs.Ask+"\nEOF")
	c.sh(t, "podman load -q -i /inner.tar; docker load -q -i /inner.tar && docker tag "+innerReference+" i")
	const inner = " run --rm --network none -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro -v /etc/alternatives:/etc/alternatives:ro " + innerReference + " sh /usr/local/bin/ask"
	var table []string
	for _, kind := range []struct{ name, command string }{
		{"exec", "sh /usr/local/bin/ask machine"},
		{"unit", "systemd-run -q --wait --pipe sh /usr/local/bin/ask"},
		{"unit, own pids", "systemd-run -q --wait --pipe -p PrivatePIDs=yes sh /usr/local/bin/ask"},
		{"docker", "docker" + inner},
		{"podman", "podman" + inner},
	} {
		table = append(table, programs.See(t, kind.name, c.age, func() string { return c.sh(t, kind.command) })...)
	}
	// runc 1.1 knows no time namespaces.
	rig.Configure(t, fmt.Sprintf("[runtime]\nbinary = %q\n[lxcfs]\ntimeout_ms = 10000\n", runtimeProgram(t, peer.Runc11)))
	var begun time.Time
	table = append(table, programs.See(t, string(peer.Runc11), func() time.Duration { return time.Since(begun) }, func() string {
		begun = time.Now()
		return run(t, c.node, image.Systemd257, []string{"--memory-limit", memoryLimit, "--cpus", "1"}, "sh", "-c", programs.Ask).Must(t)
	}, "uptime python")...)
	t.Log("\n" + strings.Join(table, "\n"))
	// The quotas of containers inside follow that of the container, down and up.
	const count = "grep -c ^processor /proc/cpuinfo"
	c.sh(t, "docker run -d --name quota --network none i sleep 1000")
	for _, processors := range []float64{0.5, 1.5, 1} {
		quota(processors)
		want := strconv.Itoa(min(runtime.NumCPU(), int(processors+0.5)))
		c.expect(t, want, count)
		c.expect(t, want, "docker exec quota "+count)
	}
	quota(-1)
	c.expect(t, strconv.Itoa(runtime.NumCPU()), "docker exec quota "+count)
	// One that an engine inside has set stays.
	quota(1.5)
	c.sh(t, "docker rm -f quota; docker run -d --name quota --network none i sleep 1000; docker update --cpus 0.4 quota")
	quota(1)
	c.expect(t, "40000", "docker exec quota sh -c 'cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null | cut -d\\  -f1'")
	c.expect(t, "1", "docker exec quota "+count)
	c.sh(t, "docker rm -f quota")
}

// programsAlone is that for the container alone, under a further runtime.
func programsAlone(t *testing.T, c *container) {
	setQuota(t, c, 1)
	rows := programs.See(t, "exec, crun", c.age, func() string { return c.sh(t, programs.Ask) })
	t.Log("\n" + strings.Join(rows, "\n"))
}

// runtimeProgram is the binary of an OCI runtime.
func runtimeProgram(t *testing.T, name peer.Name) string {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p.Program(p.Programs()[0])
}
