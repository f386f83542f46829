// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"os"
	"strconv"
	"sync"
	"time"
)

// factor is $ISOLATE_PATIENCE, by which everything is waited for longer on slow
// machines, such as those that are emulated.
var factor = sync.OnceValue(func() time.Duration {
	n, err := strconv.Atoi(os.Getenv("ISOLATE_PATIENCE"))
	if err != nil || n < 1 {
		return 1
	}
	return time.Duration(n)
})

// Slow tells that this is such a machine, where a test does with less.
func Slow() bool { return factor() > 1 }

// Patiently is how long a test waits on this machine for what may take d on an
// ordinary one before it fails.
func Patiently(d time.Duration) time.Duration { return d * factor() }
