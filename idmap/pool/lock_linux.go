// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/flock"
)

const (
	// lockPatience bounds the wait for the pool's lock if the caller's context
	// does not: the lock is held for the time of a scan, at most some 20 ms with
	// 4094 busy slots.
	lockPatience = 30 * time.Second

	// The lock is polled, since a blocking flock(2) cannot be given up.
	pollFirst = 100 * time.Microsecond
	pollMost  = 10 * time.Millisecond
)

// lock takes the pool's lock and returns the file that holds it.
func (p *Pool) lock(ctx context.Context) (_ *os.File, retErr error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	f, err := p.open("lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, f.Close())
		}
	}()
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		err := flock.Exclusive(f)
		if !errors.Is(err, flock.ErrLocked) {
			return f, err
		}
		// Jitter, so that many waiters do not come back at the same moment.
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("lock id pool %q: another process holds the lock: %w", f.Name(), context.Cause(ctx))
		case <-timer.C:
		}
	}
}
