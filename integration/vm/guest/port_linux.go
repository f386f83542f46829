// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

const portClass = "/sys/class/virtio-ports"

// portTimeout is far beyond the milliseconds in which the driver finds the port
// after its module was loaded.
const portTimeout = 30 * time.Second

var errNoPort = errors.New("no virtio-serial port " + wire.PortName)

// openPort opens the port to the runner.
func openPort() (*os.File, error) {
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		device, err := findPort()
		if err == nil {
			file, err := os.OpenFile(device, os.O_RDWR, 0)
			if err != nil {
				return nil, fmt.Errorf("open port: %w", err)
			}
			return file, nil
		}
		if time.Since(start) > portTimeout {
			return nil, err
		}
	}
}

func findPort() (string, error) {
	names, err := filepath.Glob(portClass + "/*/name")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(text)) == wire.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(name)), nil
		}
	}
	return "", errNoPort
}
