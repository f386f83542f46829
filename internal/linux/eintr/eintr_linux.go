// SPDX-License-Identifier: Apache-2.0

// Package eintr repeats system calls that a signal has interrupted: Go's runtime
// sends itself SIGURG all the time, and not every call restarts (signal(7)).
package eintr

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Do repeats fn as long as its error is EINTR.
func Do(fn func() error) error {
	_, err := Get(func() (struct{}, error) { return struct{}{}, fn() })
	return err
}

// Get is [Do] for calls that return something.
func Get[T any](fn func() (T, error)) (T, error) {
	for {
		v, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}
