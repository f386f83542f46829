// SPDX-License-Identifier: Apache-2.0

package pool

// ProcessOf names a live process so that it cannot be mistaken for a later one
// with its pid.
func ProcessOf(pid int) (Process, error) { return processOf(pid) }

// Alive tells whether the process still runs; a zombie does not.
func (p Process) Alive() (bool, error) { return p.alive() }
