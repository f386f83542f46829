// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"testing"
	"time"
)

// eventualPatience is how long a test waits for what takes well under a second
// without load.
const eventualPatience = time.Minute

// Eventually waits until a condition holds, and ends the test if it does not.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !Within(eventualPatience, holds) {
		t.Fatalf("waited %s in vain for: %s", Patiently(eventualPatience), what)
	}
}

// Within waits until a condition holds, and tells whether it does so within d, which
// is longer on slow machines. It looks often at first and then less so, since some
// conditions cost a process.
func Within(d time.Duration, holds func() bool) bool {
	const most = 100 * time.Millisecond
	pause := 2 * time.Millisecond
	for deadline := time.Now().Add(Patiently(d)); !holds(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			return false
		}
		pause = min(pause*3/2, most)
	}
	return true
}
