// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// open tells what becomes of opening files for reading, by path: "" or the error.
// It opens a directory's files.
func open(paths []string) (any, error) {
	answers := map[string]string{}
	for _, path := range paths {
		names := []string{path}
		if entries, err := os.ReadDir(path); err == nil {
			names = nil
			for _, e := range entries {
				names = append(names, filepath.Join(path, e.Name()))
			}
		}
		for _, name := range names {
			fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			answers[name] = ""
			if err != nil {
				answers[name] = err.Error()
			} else if err := unix.Close(fd); err != nil {
				return nil, err
			}
		}
	}
	return answers, nil
}
