// SPDX-License-Identifier: Apache-2.0

package task

import (
	"os/exec"
	goruntime "runtime"

	"github.com/containerd/go-runc"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/temporary"
)

// ownSessions starts each OCI runtime with the environment that the shim was started with,
// and with a session keyring of its own (session-keyring(7)). A process that crun adds to a container
// keeps crun's keyring. If that were the shim's, the processes of all containers of a
// shim would share it.
type ownSessions struct{ runc.ProcessMonitor }

func (m ownSessions) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	return m.start(cmd, m.ProcessMonitor.Start)
}

func (m ownSessions) StartLocked(cmd *exec.Cmd) (chan runc.Exit, error) {
	return m.start(cmd, m.ProcessMonitor.StartLocked)
}

// start changes the keyring of this thread, from which the runtime inherits it.
// The thread may keep it: it does nothing with keys, and the next runtime that it
// starts gets another one.
func (m ownSessions) start(cmd *exec.Cmd, start func(*exec.Cmd) (chan runc.Exit, error)) (chan runc.Exit, error) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	// 0 for the name: an anonymous one.
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		log.L.WithError(err).Warn("isolate: processes that the OCI runtime starts may share a session keyring with others of this shim")
	}
	cmd.Env = temporary.Environ(cmd.Env)
	return start(cmd)
}
