// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/testprogram"
)

// script is a runtime that writes a pid and ends with a status.
func script(t *testing.T, status int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "runtime")
	text := fmt.Sprintf("#!/bin/sh\nfor w; do case $f in --pid-file) echo 77 >$w ;; esac; f=$w; done\nexit %d\n", status)
	if err := testprogram.Write(file, text); err != nil {
		t.Fatal(err)
	}
	return file
}

// under makes go-runc ask a monitor until the test ends.
func under(t *testing.T, m monitor) {
	t.Helper()
	before := runc.Monitor
	if m.ProcessMonitor == nil {
		m.ProcessMonitor = before
	}
	runc.Monitor = m
	t.Cleanup(func() { runc.Monitor = before })
}

// What upstream makes runtimes report is seen before upstream reads it, whatever
// go-runc calls the flags.
func TestMonitorSeesReports(t *testing.T) {
	var seen []report
	refuse := errors.New("not believed")
	under(t, monitor{reported: func(r report) error { seen = append(seen, r); return refuse }})
	dir := t.TempDir()
	r := &runc.Runc{Command: script(t, 0), Root: dir, Log: filepath.Join(dir, "log.json"), LogFormat: runc.JSON}
	file := filepath.Join(dir, "x.pid")
	for command, run := range map[string]func() error{
		"create": func() error { return r.Create(t.Context(), "c", dir, &runc.CreateOpts{PidFile: file}) },
		"exec": func() error {
			return r.Exec(t.Context(), "c", specs.Process{}, &runc.ExecOpts{PidFile: file, Detach: true})
		},
		"restore": func() error {
			_, err := r.Restore(t.Context(), "c", dir, &runc.RestoreOpts{PidFile: file, Detach: true})
			return err
		},
	} {
		seen = nil
		err := run()
		if want := (report{Runtime: r.Command, Command: command, ID: "c", PIDFile: file}); len(seen) != 1 || seen[0] != want {
			t.Errorf("%s: seen %+v, want %+v", command, seen, want)
		}
		if err == nil || !strings.Contains(err.Error(), refuse.Error()) {
			t.Errorf("%s: %v", command, err)
		}
	}
	seen = nil
	if err := errors.Join(r.Start(t.Context(), "c"), r.Kill(t.Context(), "c", 9, nil)); err != nil || seen != nil {
		t.Error(seen, err)
	}
}

// A runtime that cannot delete what it does not have has nothing left to delete.
func TestDeleteOfWhatIsNotThere(t *testing.T) {
	under(t, monitor{})
	dir := t.TempDir()
	r := &runc.Runc{Command: script(t, 1), Root: dir}
	if err := r.Delete(t.Context(), "c", nil); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "c", nil); err == nil {
		t.Error("the runtime could not delete, and nobody says so")
	}
	if err := r.Kill(t.Context(), "d", 9, nil); err == nil {
		t.Error("a failed kill was taken for a delete")
	}
}

// behind collects commands behind the back of package os, as the shim's reaper does.
type behind struct{}

func (behind) Start(c *exec.Cmd) (chan runc.Exit, error) { return nil, c.Start() }

func (b behind) StartLocked(c *exec.Cmd) (chan runc.Exit, error) { return b.Start(c) }

func (behind) Wait(c *exec.Cmd, _ chan runc.Exit) (int, error) {
	var status unix.WaitStatus
	if _, err := unix.Wait4(c.Process.Pid, &status, 0, nil); err != nil {
		return -1, err
	}
	_ = c.Wait() // fails: it was collected
	return status.ExitStatus(), nil
}

// Package os keeps a pidfd of each command that somebody else collects.
func TestMonitorHoldsNoCommand(t *testing.T) {
	under(t, monitor{ProcessMonitor: behind{}})
	r := &runc.Runc{Command: script(t, 0), Root: t.TempDir()}
	run := func() {
		if err := r.Start(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	}
	run()
	before := pidfds(t)
	for range 10 {
		run()
	}
	if after := pidfds(t); after > before {
		t.Errorf("%d pidfds, %d before", after, before)
	}
}

func pidfds(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.Contains(to, "pidfd") {
			n++
		}
	}
	return n
}
