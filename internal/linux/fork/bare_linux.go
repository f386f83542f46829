// SPDX-License-Identifier: Apache-2.0

package fork

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withheld is the memory that a bare child does not get: the part of Go's heap with the
// stack of the caller, but for the stack.
//
// Each page that a child shares is copied when this process writes to it next, for as
// long as the child lives: some 2 ms of processor time for a child that lives while a
// runtime makes a container.
type withheld struct{ from, stack, rest, to uintptr }

const (
	// arena is the size of the aligned parts in which Go maps its heap on Linux, with 64
	// bits (heapArenaBytes in runtime/malloc.go); nothing else is in such a part.
	arena = 64 << 20
	// reach is how far from each other what a child needs can be. Functions that are nosplit have
	// 800 bytes of stack (internal/abi/stack.go).
	reach = 4 << 10
)

var pageSize = uintptr(os.Getpagesize())

// heap returns what is withheld; nothing from a child that needs the heap, that is, whose
// Call is not on the stack.
//
//go:nosplit
//go:norace
func (c *Call) heap() withheld {
	call := uintptr(unsafe.Pointer(c))
	here := uintptr(unsafe.Pointer(&call))
	if !c.bare || unsafe.Sizeof(here) < 8 || call < here || call-here > reach {
		return withheld{}
	}
	w := withheld{from: here &^ (arena - 1), stack: (here - reach) &^ (pageSize - 1)}
	w.rest, w.to = (call+reach)&^(pageSize-1)+pageSize, w.from+arena
	if w.stack < w.from || w.rest > w.to {
		return withheld{}
	}
	return w
}

// advise returns an errno. The kernel says ENOMEM if a part is not mapped, and goes on.
//
//go:nosplit
//go:norace
func (w withheld) advise(advice uintptr) syscall.Errno {
	if w.to == 0 {
		return 0
	}
	_, _, below := syscall.RawSyscall(unix.SYS_MADVISE, w.from, w.stack-w.from, advice)
	_, _, above := syscall.RawSyscall(unix.SYS_MADVISE, w.rest, w.to-w.rest, advice)
	if below != 0 && below != unix.ENOMEM {
		return below
	}
	if above != unix.ENOMEM {
		return above
	}
	return 0
}
