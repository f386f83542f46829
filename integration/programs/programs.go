// SPDX-License-Identifier: Apache-2.0

// Package programs asks programs what they see of the machine, in a container of any
// kind, and tells who sees the container and who the host: the same for all packages
// that start containers.
package programs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Ask is a script for the image of systemd 257 that has programs tell what they see: a
// line each, of what it is about, the program and a number: of processors, of KiB, or of
// seconds since the start. With the argument "machine" it asks what runs there too as on a
// machine: engines and systemd.
const Ask = `
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
case $1 in machine)
	say cpus docker 'docker info -f "{{.NCPU}}"'
	say memory docker 'docker info -f "{{.MemTotal}}" | numfmt --to-unit=1024'
	say cpus podman 'podman info -f "{{.Host.CPUs}}"'
	say memory podman 'podman info -f "{{.Host.MemTotal}}" | numfmt --to-unit=1024'
	say uptime systemd 'echo $(($(systemctl show -P FinishTimestampMonotonic) / 1000000))'
	say uptime journalctl 'journalctl -b -q -n 1 -o short-monotonic | grep -o "[0-9]*[.][0-9]*" | head -n 1'
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

// least is how many programs answer everywhere.
const least = 26

// See has a container of some kind answer [Ask], fails the test for each program that sees
// what it should not, and returns rows for a table. The container is of that age at most
// when it has answered; hosts are further programs that may see the host in that kind.
func See(t testing.TB, kind string, age func() time.Duration, ask func() string, hosts ...string) []string {
	t.Helper()
	var rows, wrong []string
	for range 4 { // sysinfo(2) tells of the host when a machine is busy
		if rows, wrong = judge(ask(), age(), slices.Concat(ofHost, hosts)); len(wrong) == 0 {
			break
		}
		t.Logf("%s: again: %q", kind, wrong)
	}
	for _, row := range wrong {
		t.Errorf("%s: %s", kind, row)
	}
	for n, row := range rows {
		rows[n] = fmt.Sprintf("%-15s %s", kind, row)
	}
	return rows
}

// judge tells for each answer to [Ask] who is seen in a container with one processor and
// 1 GiB, of that age at most, and which answers are wrong: those of the host but from hosts,
// and none. Too few answers are wrong too.
func judge(text string, age time.Duration, hosts []string) (rows, wrong []string) {
	for line := range strings.Lines(text) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		program, value, ok := strings.Cut(value, " ")
		number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		most := map[string]float64{"cpus": 1, "memory": 1 << 20, "uptime": age.Seconds() + 5}[what]
		sees := "the container"
		switch {
		case !ok || err != nil || most == 0 || number < 0:
			sees = "nothing"
		case number > most || what != "uptime" && number < most:
			sees = "the host"
		}
		row := fmt.Sprintf("%-7s %-17s %12s  sees %s", what, program, value, sees)
		rows = append(rows, row)
		if sees == "nothing" || sees == "the host" && !slices.Contains(hosts, what+" "+program) {
			wrong = append(wrong, row)
		}
	}
	if len(rows) < least {
		wrong = append(wrong, fmt.Sprintf("only %d programs have answered: %q", len(rows), rows))
	}
	return rows, wrong
}
