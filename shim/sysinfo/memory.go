// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"math"
	"path"
	"strconv"
	"strings"
)

// group is a directory of a cgroup hierarchy.
type group struct {
	// top is the mount of the hierarchy, dir the group's directory on it.
	top, dir string
	unified  bool
}

// reader returns the content of a file, and false if there is none.
type reader func(file string) (string, bool)

// unlimited is what stands for "max".
const unlimited = math.MaxUint64

// least is the least limit of a group and of those above it.
func (g group) least(read reader, name string) uint64 {
	limit := uint64(unlimited)
	for dir := g.dir; ; dir = path.Dir(dir) {
		if text, ok := read(path.Join(dir, name)); ok {
			limit = min(limit, number(text))
		}
		if len(dir) <= len(g.top) {
			return limit
		}
	}
}

// nearest is a value of a group, or of the one next above it that has the file: a group
// need not have the controller.
func (g group) nearest(read reader, name string) (string, bool) {
	for dir := g.dir; ; dir = path.Dir(dir) {
		if text, ok := read(path.Join(dir, name)); ok || len(dir) <= len(g.top) {
			return text, ok
		}
	}
}

// number reads what a cgroup file says: a number or "max".
func number(text string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return unlimited
	}
	return n
}

// memory is proc_meminfo_read of lxcfs: the values of a group on a host with that much
// memory and swap. It counts in KiB as that does. There are none if the group has no
// memory controller.
func memory(g group, host Memory, read reader) (Memory, bool) {
	const limitV1, usageV1 = "memory.limit_in_bytes", "memory.usage_in_bytes"
	limitName, usageName, shared := "memory.max", "memory.current", "shmem"
	if !g.unified {
		limitName, usageName, shared = limitV1, usageV1, "total_shmem"
	}
	text, ok := g.nearest(read, usageName)
	if !ok {
		return Memory{}, false
	}
	limit, usage := g.least(read, limitName), number(text)
	total := min(limit, host.Total)
	swapTotal, swapUsed := swap(g, limit, usage, read)
	if !g.unified {
		swapTotal = saturated(swapTotal, total) // what is within the limit can be swapped out too
	}
	swapTotal = min(swapTotal, host.SwapTotal)
	if text, ok := g.nearest(read, "memory.swappiness"); ok && number(text) == 0 {
		swapTotal = swapUsed
	}
	stat, _ := g.nearest(read, "memory.stat")
	m := Memory{
		Total: total, Free: total - min(total, usage), Shared: statistic(stat, shared),
		SwapTotal: swapTotal, SwapFree: swapTotal - min(swapTotal, swapUsed),
	}
	for _, v := range []*uint64{&m.Total, &m.Free, &m.Shared, &m.SwapTotal, &m.SwapFree} {
		*v &^= 1023
	}
	return m, true
}

// swap is get_swap_info of lxcfs.
func swap(g group, limit, usage uint64, read reader) (total, used uint64) {
	if g.unified {
		text, ok := g.nearest(read, "memory.swap.current")
		if !ok {
			return 0, 0
		}
		return g.least(read, "memory.swap.max"), number(text)
	}
	text, ok := g.nearest(read, "memory.memsw.usage_in_bytes")
	if !ok { // the kernel does not account for swap
		return 0, 0
	}
	both, bothUsed := g.least(read, "memory.memsw.limit_in_bytes"), number(text)
	if total = both - min(both, limit); total > 0 {
		used = bothUsed - min(bothUsed, usage)
	}
	return total, used
}

func saturated(a, b uint64) uint64 {
	if a > unlimited-b {
		return unlimited
	}
	return a + b
}

// statistic finds a value in a memory.stat.
func statistic(stat, key string) uint64 {
	_, rest, ok := strings.Cut("\n"+stat, "\n"+key+" ")
	if !ok {
		return 0
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseUint(value, 10, 64) // 0 for nonsense
	return n
}
