// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
)

// TestStyleIsForTerminals: what is read by a program has neither colours nor line breaks.
func TestStyleIsForTerminals(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	resize := func(columns uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	want := func(what string, got, want check.Style) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	resize(100)
	want("terminal", styleOf(terminal), check.Style{Width: 100, Color: true})
	want("pipe", styleOf(w), check.Style{})
	want("buffer", styleOf(&bytes.Buffer{}), check.Style{})
	resize(0)
	want("serial line", styleOf(terminal), check.Style{Width: 80, Color: true})
	t.Setenv("NO_COLOR", "1")
	want("NO_COLOR", styleOf(terminal), check.Style{Width: 80})
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	want("dumb terminal", styleOf(terminal), check.Style{Width: 80})
}
