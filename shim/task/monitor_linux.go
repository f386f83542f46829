// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	runc "github.com/containerd/go-runc"
)

// monitor runs the runtime's commands for upstream, and stands between the two
// where upstream would believe what a runtime says.
type monitor struct {
	runc.ProcessMonitor
	// reported proves what a command has reported. After an error the command has
	// failed, and upstream never sees the pid.
	reported func(report) error
}

// report is what a command of the runtime has told: in a file, the pid of a process
// that it has made.
type report struct {
	Runtime string // as it was called
	Command string // create, exec or restore
	ID      string // the container's
	PIDFile string
}

// Wait waits for a command.
func (m monitor) Wait(cmd *exec.Cmd, exits chan runc.Exit) (int, error) {
	status, err := m.ProcessMonitor.Wait(cmd, exits)
	// The reaper has collected it, so that package os does not know that it has ended
	// and would keep a pidfd for each command until the garbage collector runs.
	_ = cmd.Process.Release()
	switch {
	case err != nil:
	case status != 0 && deleted(cmd.Args):
		status = 0
	case status == 0:
		if r, ok := reportOf(cmd.Args); ok {
			err = m.reported(r)
		}
	}
	return status, err
}

// reportOf reads a command line as go-runc makes it.
func reportOf(args []string) (report, bool) {
	at := slices.IndexFunc(args, func(arg string) bool { return arg == "create" || arg == "exec" || arg == "restore" })
	if at < 1 {
		return report{}, false
	}
	r := report{Runtime: args[0], Command: args[at], ID: args[len(args)-1], PIDFile: flagOf(args[at:], "--pid-file")}
	return r, r.PIDFile != ""
}

// deleted tells that a command was to delete a container of which the runtime has
// nothing left. crun, unlike runc, calls that an error in words that upstream does
// not know, also if it is its own first attempt that has done it.
func deleted(args []string) bool {
	root, id := flagOf(args, "--root"), args[len(args)-1]
	if root == "" || !slices.Contains(args, "delete") || strings.ContainsRune(id, filepath.Separator) {
		return false
	}
	_, err := os.Lstat(filepath.Join(root, id))
	return errors.Is(err, fs.ErrNotExist)
}

func flagOf(args []string, name string) string {
	if at := slices.Index(args, name); at >= 0 && at+1 < len(args) {
		return args[at+1]
	}
	return ""
}
