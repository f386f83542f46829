// SPDX-License-Identifier: Apache-2.0

package sysinfo

import "testing"

func TestMemory(t *testing.T) {
	t.Parallel()
	const mib, gib, max1 = "1048576", "1073741824", "9223372036854771712"
	host := Memory{Total: 8 << 30, SwapTotal: 2 << 30}
	v2, v1 := group{top: "/c", dir: "/c/a/b/init", unified: true}, group{top: "/m", dir: "/m/a/b"}
	for name, c := range map[string]struct {
		g     group
		files map[string]string
		want  Memory // none if there is no answer
	}{
		"v2": {
			v2,
			map[string]string{
				"/c/a/b/init/memory.current": mib + "\n", "/c/a/b/init/memory.max": "max\n", "/c/a/b/memory.max": gib + "\n", "/c/a/memory.max": "max\n",
				"/c/a/b/init/memory.stat": "anon 1\nshmem 8192\nshmem_thp 7\n", "/c/a/b/init/memory.swap.current": "4096\n",
				"/c/a/b/init/memory.swap.max": "max\n", "/c/a/b/memory.swap.max": mib + "\n",
			},
			Memory{Total: 1 << 30, Free: 1<<30 - 1<<20, Shared: 8192, SwapTotal: 1 << 20, SwapFree: 1<<20 - 4096},
		},
		"v2, less above": {
			v2,
			map[string]string{"/c/a/b/init/memory.current": "0", "/c/a/b/memory.max": gib, "/c/a/memory.max": mib},
			Memory{Total: 1 << 20, Free: 1 << 20},
		},
		"v2, no limit": {
			v2,
			map[string]string{"/c/a/b/init/memory.current": mib, "/c/a/b/memory.max": "max", "/c/a/b/init/memory.swap.current": "0", "/c/a/b/init/memory.swap.max": "max"},
			Memory{Total: 8 << 30, Free: 8<<30 - 1<<20, SwapTotal: 2 << 30, SwapFree: 2 << 30},
		},
		"v2, controller only above": {
			v2,
			map[string]string{"/c/a/b/memory.current": "1024", "/c/a/b/memory.max": mib},
			Memory{Total: 1 << 20, Free: 1<<20 - 1024},
		},
		"v2, above the limit": {
			v2,
			map[string]string{"/c/a/b/memory.current": "1050000", "/c/a/b/memory.max": mib},
			Memory{Total: 1 << 20},
		},
		"v2, no controller": {g: v2, files: map[string]string{"/c/a/b/pids.current": "1"}},
		"v1": {
			v1,
			map[string]string{
				"/m/a/b/memory.usage_in_bytes": mib, "/m/a/b/memory.limit_in_bytes": max1, "/m/a/memory.limit_in_bytes": gib, "/m/memory.limit_in_bytes": max1,
				"/m/a/b/memory.stat": "shmem 1\ntotal_shmem 8192\n", "/m/a/b/memory.swappiness": "60",
			},
			Memory{Total: 1 << 30, Free: 1<<30 - 1<<20, Shared: 8192, SwapTotal: 1 << 30, SwapFree: 1 << 30},
		},
		"v1, swap limited": {
			v1,
			map[string]string{
				"/m/a/b/memory.usage_in_bytes": mib, "/m/a/b/memory.limit_in_bytes": gib, "/m/a/b/memory.swappiness": "60",
				"/m/a/b/memory.memsw.usage_in_bytes": "2097152", "/m/a/b/memory.memsw.limit_in_bytes": "1074790400",
			},
			Memory{Total: 1 << 30, Free: 1<<30 - 1<<20, SwapTotal: 1<<30 + 1<<20, SwapFree: 1 << 30},
		},
		"v1, never swaps": {
			v1,
			map[string]string{
				"/m/a/b/memory.usage_in_bytes": "0", "/m/a/b/memory.limit_in_bytes": mib, "/m/a/b/memory.swappiness": "0",
				"/m/a/b/memory.memsw.usage_in_bytes": "4096", "/m/a/b/memory.memsw.limit_in_bytes": gib,
			},
			Memory{Total: 1 << 20, Free: 1 << 20, SwapTotal: 4096},
		},
		"the root, v1": {
			group{top: "/m", dir: "/m"},
			map[string]string{"/m/memory.usage_in_bytes": "1024", "/m/memory.limit_in_bytes": max1, "/m/memory.swappiness": "0"},
			Memory{Total: 8 << 30, Free: 8<<30 - 1024},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := memory(c.g, host, func(file string) (string, bool) {
				text, ok := c.files[file]
				return text, ok
			})
			if got != c.want || ok != (c.want != Memory{}) {
				t.Errorf("%+v, %v, want %+v", got, ok, c.want)
			}
		})
	}
}
