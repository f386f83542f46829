// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ask has programs tell what they see: a line each, of what it is about, the program
// and a number: of processors, of KiB, or of seconds since the start.
const ask = `
say() { echo "$1 $2 $(sh -c "$3" 2>/dev/null | tail -n 1)"; }
say cpus cpuinfo 'grep -c ^processor /proc/cpuinfo'
say cpus stat 'grep -c ^cpu[0-9] /proc/stat'
say cpus getconf 'getconf _NPROCESSORS_ONLN'
say cpus getconf-conf 'getconf _NPROCESSORS_CONF'
say cpus lscpu 'lscpu -p=cpu | grep -c ^[0-9]'
say cpus top 'top -b -n 1 -1 | grep -o "%Cpu[0-9]" | wc -l'
say cpus nproc nproc
say cpus busybox-nproc 'busybox nproc'
say memory free 'free -k | awk "NR==2{print \$2}"'
say memory busybox 'busybox free -k | awk "NR==2{print \$2}"'
say memory top 'top -b -n 1 -E k | awk "/Mem :/{print int(\$4)}"'
say memory vmstat 'vmstat -s -S K | awk "/total memory/{print \$1}"'
say memory getconf 'echo $(($(getconf _PHYS_PAGES) * $(getconf PAGESIZE) / 1024))'
say memory htop 'printf q | TERM=xterm script -qc "htop -C" /dev/null | grep -oE "/[0-9.]+[KMG]" | head -n 1 | tr -d / | numfmt --from=iec --to-unit=1024'
say uptime uptime 'echo $(($(date +%s) - $(date -d "$(uptime -s)" +%s)))'
say uptime ps 'ps -o etimes= -p $$'
say uptime ps-lstart 'echo $(($(date +%s) - $(date -d "$(ps -o lstart= -p $$)" +%s)))'
python3 -c '
import os, psutil, time
print("cpus python", os.cpu_count())
print("cpus python-affinity", len(os.sched_getaffinity(0)))
print("cpus psutil", psutil.cpu_count())
print("cpus psutil-times", len(psutil.cpu_times(percpu=True)))
print("memory python", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") // 1024)
print("memory psutil", psutil.virtual_memory().total // 1024)
print("uptime python", round(time.clock_gettime(time.CLOCK_BOOTTIME)))
print("uptime psutil-boot", round(time.time() - psutil.boot_time()))
print("uptime psutil-create", round(time.time() - psutil.Process().create_time()))
'
node -e '
const os = require("os")
console.log("cpus node", os.cpus().length)
console.log("cpus node-parallelism", os.availableParallelism())
console.log("memory node", os.totalmem() / 1024)
console.log("uptime node", Math.round(os.uptime()))
'
case $1 in engines)
	say cpus docker 'docker info -f "{{.NCPU}}"'
	say memory docker 'docker info -f "{{.MemTotal}}" | numfmt --to-unit=1024'
	say cpus podman 'podman info -f "{{.Host.CPUs}}"'
	say memory podman 'podman info -f "{{.Host.MemTotal}}" | numfmt --to-unit=1024'
esac`

// ofHost are the programs that may see the host, as docs/limits.md says.
var ofHost = []string{
	// They ask for the processors on which they may run, which a quota leaves alone.
	"cpus nproc", "cpus busybox-nproc", "cpus python-affinity", "cpus node-parallelism", "cpus docker", "cpus podman",
	// Numbers of processors that a program can meet; they must not be too small.
	"cpus getconf-conf",
	// The btime of lxcfs.
	"uptime ps-lstart", "uptime psutil-boot", "uptime psutil-create",
}

// systemdPrograms runs programs that look at the machine, in the container and in each
// kind of container inside, and prints who sees what. Its CPU quota comes with an update.
func systemdPrograms(t *testing.T, c *container) {
	quota := func(processors float64) {
		period := uint64(100000)
		time := int64(processors * float64(period))
		c.node.Container(c.id).Update(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &time, Period: &period}})
	}
	quota(1)
	c.sh(t, "cat >/usr/local/bin/ask <<'EOF'\n"+ask+"\nEOF")
	c.sh(t, "podman load -q -i /inner.tar; docker load -q -i /inner.tar && docker tag "+innerReference+" i")
	const inner = " run --rm --network none -v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro -v /etc/alternatives:/etc/alternatives:ro " + innerReference + " sh /usr/local/bin/ask"
	var table []string
	for _, kind := range []struct{ name, command string }{
		{"exec", "sh /usr/local/bin/ask engines"},
		{"unit", "systemd-run -q --wait --pipe sh /usr/local/bin/ask"},
		{"unit, own pids", "systemd-run -q --wait --pipe -p PrivatePIDs=yes sh /usr/local/bin/ask"},
		{"docker", "docker" + inner},
		{"podman", "podman" + inner},
	} {
		var rows, wrong []string
		for range 4 { // sysinfo(2) tells of the host when a machine is busy
			if rows, wrong = judge(c.sh(t, kind.command), c.age); len(wrong) == 0 {
				break
			}
			t.Logf("%s: again: %q", kind.name, wrong)
		}
		for _, row := range wrong {
			t.Errorf("%s: %s", kind.name, row)
		}
		if len(rows) < 26 {
			t.Errorf("%s: only %d programs have answered: %q", kind.name, len(rows), rows)
		}
		for _, row := range rows {
			table = append(table, fmt.Sprintf("%-15s %s", kind.name, row))
		}
	}
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

// judge tells for each line of ask who is seen, and which lines should be others.
func judge(text string, age func() time.Duration) (rows, wrong []string) {
	for line := range strings.Lines(text) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		program, value, ok := strings.Cut(value, " ")
		number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		most := map[string]float64{"cpus": 1, "memory": 1 << 20, "uptime": age().Seconds() + 5}[what]
		sees := "the container"
		switch {
		case !ok || err != nil || most == 0 || number < 0:
			sees = "nothing"
		case number > most || what != "uptime" && number < most:
			sees = "the host"
		}
		row := fmt.Sprintf("%-7s %-17s %12s  sees %s", what, program, value, sees)
		rows = append(rows, row)
		if sees == "nothing" || sees == "the host" && !slices.Contains(ofHost, what+" "+program) {
			wrong = append(wrong, row)
		}
	}
	return rows, wrong
}
