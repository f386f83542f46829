// SPDX-License-Identifier: Apache-2.0

package heal

import "time"

// When containers that do not show what they should are reconciled again.
const (
	// firstTry and maxTries are for a server that is about to come: a mount may
	// be there before it answers, and a supervisor may wait before it starts one.
	// The time doubles each time, so that all take half a minute.
	firstTry = 250 * time.Millisecond
	maxTries = 7
	// settling is how long mounts are left to settle after a change; it doubles
	// up to maxSettling with each change that is not one of lxcfs, as all mounts are read
	// then.
	settling    = 250 * time.Millisecond
	maxSettling = 30 * time.Second
	// again is when lxcfs is asked although its mounts look the same: numbers of
	// mounts and devices are used again.
	again = 15 * time.Second
)

// situation is what decides how long a watch waits.
type situation struct {
	pending bool // a container is owed files, or it is not known whether it is
	late    bool // a container is left alone since its file systems hold up a child
	hung    bool // a server that did not answer in time still does not
	tries   int  // of reconciling since the last change
}

// timeout is how long to wait for a change before containers are reconciled again;
// negative is for ever.
func (s situation) timeout() time.Duration {
	switch {
	case s.pending && s.tries < maxTries:
		return soon(s.tries)
	case s.pending && s.hung, s.late:
		return again
	}
	return -1
}

// soon is how long after the last time containers are reconciled again if mounts change,
// although those of lxcfs look the same.
func soon(tries int) time.Duration {
	if tries < maxTries {
		return firstTry << tries
	}
	return again
}
