// SPDX-License-Identifier: Apache-2.0

// Package timens computes what a time namespace (time_namespaces(7), Linux 5.6)
// adds to the clocks that count from the machine's boot.
package timens

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Offsets are seconds that a namespace adds to its clocks.
type Offsets struct {
	Boottime, Monotonic int64
}

// ErrUnsupported says that the kernel has no time namespaces.
var ErrUnsupported = errors.New("no time namespaces (needs Linux 5.6)")

// FromNow returns the offsets with which both clocks begin near zero now. The
// kernel takes offsets to the clocks of the initial namespace, also from inside
// another one, whose own are taken into account.
func FromNow() (Offsets, error) {
	content, err := os.ReadFile("/proc/self/timens_offsets")
	if errors.Is(err, os.ErrNotExist) {
		return Offsets{}, ErrUnsupported
	}
	if err != nil {
		return Offsets{}, err
	}
	own, err := parse(string(content))
	if err != nil {
		return Offsets{}, err
	}
	var boottime, monotonic unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_BOOTTIME, &boottime), unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic)); err != nil {
		return Offsets{}, fmt.Errorf("clock_gettime: %w", err)
	}
	// Whole seconds, rounded so that no clock is negative, which the kernel refuses.
	return Offsets{Boottime: own.Boottime - int64(boottime.Sec), Monotonic: own.Monotonic - int64(monotonic.Sec)}, nil //nolint:unconvert // narrower on some platforms
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
			o.Boottime = seconds
			seen++
		case "monotonic", strconv.Itoa(unix.CLOCK_MONOTONIC):
			o.Monotonic = seconds
			seen++
		}
	}
	if seen != 2 {
		return Offsets{}, fmt.Errorf("parse timens_offsets %q: a clock is missing", content)
	}
	return o, nil
}
