// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// told is the answer of "inside sysinfo".
type told struct {
	Width                                            int
	Uptime                                           int64
	Loads                                            [3]uint64
	Total, Free, Shared, Buffer, SwapTotal, SwapFree uint64
	Procs                                            uint16
}

// TestSysinfo: programs that ask the kernel by sysinfo(2) see the container, as those do
// that read the files of lxcfs. It prints who sees what.
func TestSysinfo(t *testing.T) {
	const limit = 256 << 20
	// The first line of each is the total in KiB.
	const script = `
echo == meminfo; awk '/^(MemTotal|MemFree|Shmem|SwapTotal|SwapFree):/{print $2}' /proc/meminfo
echo == procps; free -k | awk 'NR==2{print $2; print $4}'
echo == busybox; busybox free | awk 'NR==2{print $2; print $4}'
echo == glibc; echo $(($(getconf _PHYS_PAGES) * $(getconf PAGESIZE) / 1024))
echo == uptime; cut -d. -f1 /proc/uptime
echo == wide; /inside sysinfo
echo == narrow; /inside32 sysinfo
echo == end`
	rig.Require(t, rig.Root, rig.FUSE)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	table := []string{fmt.Sprintf("%-10s %-8s %-8s %12s  sees", "runtime", "way", "program", "memory, KiB")}
	for _, runtime := range []peer.Name{peer.Runc15, peer.Runc11, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			m := machineFor(t, runtime, "overlayfs", image.Client, "[lxcfs]", `mode = "require"`, "timeout_ms = 10000")
			options := slices.Concat(withInside(t), volume(insideNamed(t, "inside32"), "/inside32", "rbind:ro"), []string{"--memory-limit", strconv.Itoa(limit)})
			check := func(way string, r rig.Result) (rows, wrong []string) {
				fail := func(format string, args ...any) { wrong = append(wrong, way+", "+fmt.Sprintf(format, args...)) }
				got := sections(r.Must(t))
				meminfo := numbers(t, got["meminfo"])
				if len(meminfo) != 5 || meminfo[0] != limit>>10 {
					t.Fatalf("%s: meminfo has %v", way, meminfo)
				}
				for _, program := range []string{"procps", "busybox", "glibc", "wide", "narrow"} {
					var values []float64
					if text := got[program]; strings.HasPrefix(text, "{") {
						s := answer[told](t, rig.Result{Stdout: text})
						values = []float64{float64(s.Total >> 10), float64(s.Free >> 10)}
						rest := []float64{float64(s.Shared >> 10), float64(s.SwapTotal >> 10), float64(s.SwapFree >> 10)}
						if !near(rest, meminfo[2:], limit>>10) || s.Buffer != 0 {
							fail("%s: shared and swap are %v and meminfo's %v, buffers %d", program, rest, meminfo[2:], s.Buffer)
						}
						if up := numbers(t, got["uptime"]); math.Abs(float64(s.Uptime)-up[0]) > 3 {
							fail("%s: up for %d s, /proc/uptime says %v", program, s.Uptime, up)
						}
						if s.Procs == 0 || s.Procs > 50 || s.Loads[0] > uint64(s.Procs)<<16 || way == "exec" && s.Loads[0] == 0 {
							fail("%s: %d threads, loads %v in 65536ths", program, s.Procs, s.Loads)
						}
						if want := map[string]int{"wide": 64, "narrow": 32}[program]; s.Width != want {
							fail("%s: a program of %d bits", program, s.Width)
						}
					} else {
						values = numbers(t, text)
					}
					sees := "the container"
					if len(values) == 0 || values[0] != limit>>10 || !near(values[1:], meminfo[1:], limit>>10) {
						sees = "not the container"
						fail("%s: %v, meminfo has %v", program, values, meminfo)
					}
					if len(values) > 0 {
						rows = append(rows, fmt.Sprintf("%-10s %-8s %-8s %12.0f  %s", runtime, way, program, values[0], sees))
					}
				}
				return rows, wrong
			}
			// The kernel answers what the shim has not in 200 ms, as on a busy machine.
			patiently := func(way string, run func() rig.Result) {
				rows, wrong := check(way, run())
				for try := 1; len(wrong) > 0 && try < 5; try++ {
					t.Logf("again: %q", wrong)
					rows, wrong = check(way, run())
				}
				for _, w := range wrong {
					t.Error(w)
				}
				table = append(table, rows...)
			}
			patiently("run", func() rig.Result { return m.run(t, options, "sh", "-c", script) })
			m.start(t, "asked", options, "sh", "-c", "while :; do :; done") // a load
			patiently("exec", func() rig.Result { return m.exec(t, "asked", nil, "sh", "-c", script) })
			if w := m.warnings(t); len(w) > 0 {
				t.Errorf("warned: %q", w)
			}
		})
	}
	t.Log("\n" + strings.Join(table, "\n"))
	t.Run("off", func(t *testing.T) {
		m := demoMachine(t, peer.Runc15, "[lxcfs]", `mode = "require"`, "timeout_ms = 10000", "sysinfo = false")
		s := answer[told](t, m.run(t, append(withInside(t), "--memory-limit", strconv.Itoa(limit)), "/inside", "sysinfo"))
		if s.Total <= limit {
			t.Errorf("it is told of %d bytes", s.Total)
		}
	})
}

// near tells whether numbers are within a hundredth of all.
func near(got, want []float64, all float64) bool {
	for i, v := range got {
		if i >= len(want) || math.Abs(v-want[i]) > all/100 {
			return false
		}
	}
	return true
}

func numbers(t *testing.T, text string) (all []float64) {
	t.Helper()
	for field := range strings.FieldsSeq(text) {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}
