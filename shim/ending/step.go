// SPDX-License-Identifier: Apache-2.0

package ending

import "time"

// observed is what the next step depends on.
type observed struct {
	// since is the time since the first SIGKILL; negative if there was none.
	since time.Duration
	// first tells that a thread of the first process is left, others that another
	// process of the container is.
	first, others bool
	// reported tells that the log already names what is left.
	reported bool
}

// How long after the first SIGKILL each step is taken. Most containers have ended
// within 30 ms. A FUSE server that lives gets a second to answer its requests.
const (
	killAllAfter = 200 * time.Millisecond
	abortAfter   = time.Second
	reportAfter  = 4 * time.Second
	again        = 50 * time.Millisecond
	seldom       = 30 * time.Second
)

// step is what to do next.
type step struct {
	// done tells that nothing is left.
	done bool
	// kill sends SIGKILL to the first process; all sends it to every process.
	kill, all bool
	// abort ends the container's FUSE connections in which a process waits.
	abort bool
	// report logs which processes are left.
	report bool
	// wait is how long to wait for the end of the first process before the next look.
	wait time.Duration
}

// next decides the next step.
func next(o observed) step {
	switch {
	case !o.first && !o.others:
		return step{done: true}
	case o.since < 0:
		return step{kill: true, all: !o.first, wait: killAllAfter}
	case o.since < killAllAfter && o.first:
		return step{wait: killAllAfter - o.since}
	case o.since < abortAfter:
		return step{all: true, wait: again}
	case o.since < reportAfter:
		// Each time: a process may have had the next server ready.
		return step{all: true, abort: true, wait: again}
	default:
		return step{all: true, abort: true, report: !o.reported, wait: min(o.since/4, seldom)}
	}
}
