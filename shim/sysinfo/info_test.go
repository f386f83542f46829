// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// narrow is struct sysinfo of 32-bit programs.
type narrow struct {
	Uptime                                           int32
	Loads                                            [3]uint32
	Total, Free, Shared, Buffer, SwapTotal, SwapFree uint32
	Procs, Pad                                       uint16
	TotalHigh, FreeHigh, Unit                        uint32
	Rest                                             [8]byte
}

func TestEncode(t *testing.T) {
	t.Parallel()
	i := Info{
		Uptime: 9, Loads: [3]uint64{1, 2, 3}, Procs: 65535,
		Memory: Memory{Total: 3 << 30, Free: 2 << 30, Shared: 1 << 20, Buffer: 1 << 12, SwapTotal: 1 << 30, SwapFree: 1 << 29},
	}
	b := i.Encode(Wide)
	if len(b) != int(unsafe.Sizeof(unix.Sysinfo_t{})) {
		t.Fatalf("%d bytes", len(b))
	}
	want := unix.Sysinfo_t{
		Uptime: 9, Loads: [3]uint64{1, 2, 3}, Procs: 65535, Unit: 1,
		Totalram: 3 << 30, Freeram: 2 << 30, Sharedram: 1 << 20, Bufferram: 1 << 12, Totalswap: 1 << 30, Freeswap: 1 << 29,
	}
	if got := *(*unix.Sysinfo_t)(unsafe.Pointer(&b[0])); got != want {
		t.Errorf("wide: %+v", got)
	}
	for name, c := range map[string]struct {
		total, swap uint64
		unit        uint64
	}{
		"in bytes":   {1<<32 - 1024, 1 << 30, 1},
		"in pages":   {1 << 32, 0, pageSize},
		"large swap": {1 << 30, 1 << 33, pageSize},
	} {
		i.Total, i.SwapTotal = c.total, c.swap
		b := i.Encode(Narrow)
		if len(b) != 64 || unsafe.Sizeof(narrow{}) != 64 {
			t.Fatalf("%d bytes", len(b))
		}
		got := *(*narrow)(unsafe.Pointer(&b[0]))
		want := narrow{
			Uptime: 9, Loads: [3]uint32{1, 2, 3}, Procs: 65535, Unit: uint32(c.unit),
			Total: uint32(c.total / c.unit), Free: uint32(i.Free / c.unit), Shared: uint32(i.Shared / c.unit), Buffer: uint32(i.Buffer / c.unit),
			SwapTotal: uint32(c.swap / c.unit), SwapFree: uint32(i.SwapFree / c.unit),
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestLayoutOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arch   uint32
		nr     int32
		layout Layout
		ok     bool
	}{
		{unix.AUDIT_ARCH_X86_64, 99, Wide, true},
		{unix.AUDIT_ARCH_X86_64, 99 | x32, Wide, true},
		{unix.AUDIT_ARCH_X86_64, 155, Wide, false},
		{unix.AUDIT_ARCH_X86_64, 116, Wide, false}, // syslog's was 103
		{unix.AUDIT_ARCH_I386, 116, Narrow, true},
		{unix.AUDIT_ARCH_I386, 99, Narrow, false}, // statfs
		{unix.AUDIT_ARCH_AARCH64, 179, Wide, true},
		{unix.AUDIT_ARCH_ARM, 116, Narrow, true},
		{unix.AUDIT_ARCH_MIPS, 116, Wide, false},
	} {
		if layout, ok := LayoutOf(c.arch, c.nr); ok != c.ok || layout != c.layout {
			t.Errorf("%#x, %d: %v, %v", c.arch, c.nr, layout, ok)
		}
	}
}
