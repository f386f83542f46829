// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// budget is the processor time that a container can make the shim spend. The shim works
// in the host's control groups, and a loop of pivot_root calls must not take a processor
// from others. A notification above the budget waits: it stays with the kernel, and the
// caller sleeps, until there is time again. Before that sysinfo(2) is not answered any more
// but goes on, which is cheaper.
type budget struct {
	// processors returns how many processors the container itself may use.
	processors func() float64

	mu    sync.Mutex
	left  time.Duration // of processor time; negative if it is overdrawn
	last  time.Time
	rate  float64 // seconds each second, as of asked
	asked time.Time
}

const (
	// fraction of what the container may use. The aim is a tenth. It is half of that,
	// since the kernel's work to wake the shim up is not measured.
	fraction = 0.05
	// burst is how much time can be saved up: some hundred inner containers.
	burst = 200 * time.Millisecond
	// estimate is charged for a notification until its cost is known.
	estimate = time.Millisecond
	// infoEstimate is estimate for sysinfo(2).
	infoEstimate = 100 * time.Microsecond
	// wakeup is charged for each sysinfo(2), for what is not measured: that Go's scheduler
	// wakes up takes longer than all the rest.
	wakeup = 100 * time.Microsecond
	// reserve is left to pivot_root by sysinfo(2).
	reserve = burst / 4
	// askAgain is how long the number of processors is taken as known.
	askAgain = time.Second
)

// refill adds the time that was earned since the last call. It is called with the lock
// held.
func (b *budget) refill(now time.Time) {
	if b.last.IsZero() {
		b.left, b.last = burst, now
	}
	if b.left >= burst { // nothing to add, so nobody is asked
		b.last = now
		return
	}
	if now.Sub(b.asked) >= askAgain || b.asked.IsZero() {
		b.rate, b.asked = fraction*b.processors(), now
	}
	if passed := now.Sub(b.last); passed > 0 {
		b.left = min(burst, b.left+time.Duration(b.rate*float64(passed)))
	}
	b.last = now
}

// wait returns how long to wait until there is time to spend.
func (b *budget) wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refill(now); b.left >= 0 {
		return 0
	}
	return min(askAgain, time.Duration(float64(-b.left)/max(b.rate, 1e-6)))
}

// plenty tells whether more than the reserve is left.
func (b *budget) plenty(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	return b.left >= reserve
}

// spend takes time off the budget, which may then be overdrawn.
func (b *budget) spend(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left -= d
}

// metered runs fn and returns the processor time of the thread that it took.
func metered(fn func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Timespec
	errBefore := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before)
	fn()
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after); err != nil || errBefore != nil {
		return estimate
	}
	return time.Duration(after.Nano() - before.Nano())
}
