// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The first thread is that of main, if it is locked to it from the beginning.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "hang" {
		runtime.LockOSThread()
	}
}

// hang looks up paths, each in a thread that is not the first one, and does not end by
// itself.
func hang(paths []string) (any, error) {
	if unix.Gettid() != os.Getpid() {
		return nil, errors.New("main is not on the first thread")
	}
	for _, path := range paths {
		go os.Stat(path) //nolint:errcheck // that it waits for the answer is the point
	}
	for {
		_ = unix.Pause()
	}
}
