// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
)

// Info is what sysinfo(2) tells.
type Info struct {
	// Uptime is in seconds.
	Uptime int64
	// Loads are the averages of 1, 5 and 15 minutes, times 65536.
	Loads [3]uint64
	// Procs is the number of threads.
	Procs uint16
	Memory
}

// Memory is in bytes.
type Memory struct{ Total, Free, Shared, Buffer, SwapTotal, SwapFree uint64 }

// Layout is one of the layouts of struct sysinfo.
type Layout int

const (
	// Wide is that of 64-bit programs, and of x32.
	Wide Layout = iota
	// Narrow is that of 32-bit programs.
	Narrow
)

// x32 marks the system calls of that ABI (__X32_SYSCALL_BIT).
const x32 = 0x40000000

// LayoutOf tells whether a system call, by its ABI (AUDIT_ARCH_* of linux/audit.h) and
// number, is sysinfo, and the layout of its struct.
func LayoutOf(arch uint32, nr int32) (Layout, bool) {
	switch arch {
	case unix.AUDIT_ARCH_X86_64:
		return Wide, nr&^x32 == 99
	case unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_RISCV64:
		return Wide, nr == 179
	case unix.AUDIT_ARCH_PPC64LE, unix.AUDIT_ARCH_S390X:
		return Wide, nr == 116
	case unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390:
		return Narrow, nr == 116
	}
	return Wide, false
}

// Encode makes a struct sysinfo. Where a memory is too large for 32 bits, the unit is a
// page, as in the kernel (kernel/sys.c, COMPAT_SYSCALL_DEFINE1(sysinfo)).
func (i Info) Encode(l Layout) []byte {
	sizes := []uint64{i.Total, i.Free, i.Shared, i.Buffer, i.SwapTotal, i.SwapFree}
	order := binary.NativeEndian
	if l == Wide {
		b := order.AppendUint64(nil, uint64(i.Uptime)) //nolint:gosec // the same bits
		for _, v := range append(i.Loads[:], sizes...) {
			b = order.AppendUint64(b, v)
		}
		b = order.AppendUint64(order.AppendUint16(b, i.Procs), 0)[:88] // and padding
		b = append(b, make([]byte, 16)...)                             // high memory
		return append(order.AppendUint32(b, 1), 0, 0, 0, 0)
	}
	unit := uint64(1)
	if i.Total > math.MaxUint32 || i.SwapTotal > math.MaxUint32 {
		unit = pageSize
	}
	b := order.AppendUint32(nil, uint32(i.Uptime)) //nolint:gosec // as the kernel does
	for _, v := range i.Loads {
		b = order.AppendUint32(b, uint32(v)) //nolint:gosec // as above
	}
	for _, v := range sizes {
		b = order.AppendUint32(b, uint32(v/unit)) //nolint:gosec // fits, up to 16 TiB
	}
	b = append(order.AppendUint16(b, i.Procs), 0, 0)
	b = append(b, make([]byte, 8)...) // high memory
	return append(order.AppendUint32(b, uint32(unit)), make([]byte, 8)...)
}
