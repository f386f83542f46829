// SPDX-License-Identifier: Apache-2.0

// Package testprogram writes programs that a test is to execute.
package testprogram

import (
	"os"
	"syscall"
)

// Write writes an executable file. Unlike with [os.WriteFile], no child that another
// goroutine forks meanwhile inherits the open file, which the child keeps until it
// executes its own program: whoever executes the file before that gets ETXTBSY
// (https://go.dev/issue/22315).
func Write(path, content string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o755)
}
