// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// told is what sysinfo(2) tells, sizes in bytes.
type told struct {
	// Width is that of this program's words, in bits.
	Width                                            int
	Uptime                                           int64
	Loads                                            [3]uint64
	Total, Free, Shared, Buffer, SwapTotal, SwapFree uint64
	Procs                                            uint16
	// Took is the mean time of a call, in microseconds.
	Took float64
}

// sysinfo asks the kernel, once or as often as it is told.
func sysinfo(args []string) (any, error) {
	times := 1
	if len(args) > 0 {
		var err error
		if times, err = strconv.Atoi(args[0]); err != nil {
			return nil, fmt.Errorf("how often: %w", err)
		}
	}
	var s unix.Sysinfo_t
	start := time.Now()
	for range times {
		if err := unix.Sysinfo(&s); err != nil {
			return nil, fmt.Errorf("sysinfo: %w", err)
		}
	}
	took := time.Since(start)
	size := func(v uint64) uint64 { return v * uint64(s.Unit) }
	t := told{
		Width: int(8 * unsafe.Sizeof(uintptr(0))), Uptime: int64(s.Uptime), Procs: s.Procs, //nolint:unconvert // narrower on some platforms
		Total: size(uint64(s.Totalram)), Free: size(uint64(s.Freeram)), Shared: size(uint64(s.Sharedram)), Buffer: size(uint64(s.Bufferram)), //nolint:unconvert // as above
		SwapTotal: size(uint64(s.Totalswap)), SwapFree: size(uint64(s.Freeswap)), //nolint:unconvert // as above
		Took: float64(took.Microseconds()) / float64(times),
	}
	for i, l := range s.Loads {
		t.Loads[i] = uint64(l) //nolint:unconvert // as above
	}
	return t, nil
}
