// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"io"
	"strings"
	"sync"
)

// console keeps the end of what a guest and its emulator print, and copies all
// of it to a writer if there is one.
type console struct {
	mu   sync.Mutex
	copy io.Writer
	text []byte
}

const consoleSize = 8 << 10

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	if extra := len(c.text) - consoleSize; extra > 0 {
		c.text = c.text[extra:]
	}
	if c.copy != nil {
		return c.copy.Write(p)
	}
	return len(p), nil
}

// tail returns the last lines.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := strings.TrimSpace(strings.ReplaceAll(string(c.text), "\r", ""))
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
