// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// sysFinitModule is the number of finit_module(2) on amd64, which the standard
// library does not name.
const sysFinitModule = 313

// loadModules loads the modules of a directory in the order of their names.
func loadModules(dir string) error {
	files, err := filepath.Glob(dir + "/*.ko")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(file); err != nil {
			return fmt.Errorf("load module %q: %w", filepath.Base(file), err)
		}
	}
	return nil
}

// noSuchDevice is what modules return that find no CPU feature or device of
// theirs, such as crc32c_intel. Nothing that is needed depends on them.
func noSuchDevice(err error) bool { return errors.Is(err, syscall.ENODEV) }

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	parameters := [1]byte{}
	_, _, errno := syscall.Syscall(sysFinitModule, file.Fd(), uintptr(unsafe.Pointer(&parameters[0])), 0)
	if errno == 0 || errno == syscall.EEXIST || noSuchDevice(errno) {
		return nil
	}
	return errno
}
