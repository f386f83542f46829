// SPDX-License-Identifier: Apache-2.0

package heal

import "time"

// lookEvery is how often the signs of a hang are looked at. On a busy machine each look
// takes 0.2 ms of processor time, with all that wakes up for it. A server is asked only
// when signs last, so that one that is merely busy is left in peace.
const lookEvery = 1500 * time.Millisecond

// leastHang is how long a suspect must leave a question without an answer.
const leastHang = time.Second

// sign is what was seen of the servers.
type sign struct {
	stopped bool // one is stopped by a signal
	waiting bool // somebody waits for one
}

// suspicion decides when to ask a server whether it hangs, and whether it answers again.
// Each question that was no use doubles the time until the next one.
type suspicion struct {
	looks int // how often the sign was there, one after the other
	asked int // how often that has led to a question
}

// maxAsked bounds the doubling, at one question or two in a minute.
const maxAsked = 5

// look notes what was seen, and tells whether to ask. A server that hangs, of which the
// files were taken away, is asked when nothing speaks for a hang any more.
func (s *suspicion) look(seen sign, hangs bool) bool {
	there, enough := seen.stopped || seen.waiting, 2
	if hangs {
		there = !there
	}
	if !there {
		*s = suspicion{}
		return false
	}
	if hangs || seen.stopped {
		enough = 1
	}
	s.looks++
	if s.looks < enough<<s.asked {
		return false
	}
	s.looks, s.asked = 0, min(s.asked+1, maxAsked)
	return true
}
