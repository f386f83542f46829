// SPDX-License-Identifier: Apache-2.0

// Package timens makes time namespaces (time_namespaces(7), Linux 5.6), and computes
// what they add to the clocks that count from the machine's boot.
package timens

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Offset is what a namespace adds to a clock.
type Offset struct {
	Secs     int64
	Nanosecs uint32
}

// Offsets are the offsets of both clocks.
type Offsets struct {
	Boottime, Monotonic Offset
}

// String has the form of /proc/PID/timens_offsets.
func (o Offsets) String() string {
	return fmt.Sprintf("boottime %d %d\nmonotonic %d %d\n",
		o.Boottime.Secs, o.Boottime.Nanosecs, o.Monotonic.Secs, o.Monotonic.Nanosecs)
}

// ErrUnsupported says that the kernel has no time namespaces.
var ErrUnsupported = errors.New("no time namespaces (needs Linux 5.6)")

// FromNow returns the offsets with which both clocks begin near zero now. The kernel
// takes offsets relative to the clocks of the initial namespace, so FromNow adds the
// offsets of the caller's own namespace.
func FromNow() (Offsets, error) {
	own, err := read("self")
	if err != nil {
		return Offsets{}, err
	}
	var boottime, monotonic unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime), unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic)); err != nil {
		return Offsets{}, fmt.Errorf("clock_gettime: %w", err)
	}
	// Whole seconds, rounded so that no clock is negative, which the kernel refuses.
	return Offsets{
		Boottime:  Offset{Secs: own.Boottime.Secs - int64(boottime.Sec)},   //nolint:unconvert // narrower on some platforms
		Monotonic: Offset{Secs: own.Monotonic.Secs - int64(monotonic.Sec)}, //nolint:unconvert // as above
	}, nil
}

// OfChildren returns the offsets of the clocks that children of a process have.
func OfChildren(pid int) (Offsets, error) { return read(strconv.Itoa(pid)) }

func read(pid string) (Offsets, error) {
	content, err := os.ReadFile("/proc/" + pid + "/timens_offsets")
	if errors.Is(err, os.ErrNotExist) {
		return Offsets{}, ErrUnsupported
	}
	if err != nil {
		return Offsets{}, err
	}
	return parse(string(content))
}

// parse reads /proc/PID/timens_offsets: lines of a clock's name, seconds and
// nanoseconds. Nanoseconds are dropped, which makes an offset smaller.
func parse(content string) (o Offsets, _ error) {
	seen := 0
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return Offsets{}, fmt.Errorf("parse timens_offsets %q: want CLOCK SECONDS NANOSECONDS", line)
		}
		seconds, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return Offsets{}, fmt.Errorf("parse timens_offsets %q: %w", line, err)
		}
		switch fields[0] {
		case "boottime", strconv.Itoa(unix.CLOCK_BOOTTIME):
			o.Boottime.Secs = seconds
			seen++
		case "monotonic", strconv.Itoa(unix.CLOCK_MONOTONIC):
			o.Monotonic.Secs = seconds
			seen++
		}
	}
	if seen != 2 {
		return Offsets{}, fmt.Errorf("parse timens_offsets %q: a clock is missing", content)
	}
	return o, nil
}
