// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// Start starts the shim, in a session keyring of its own, or finds that of the
// container's group.
//
// crun gives one to the first process of a container but not to what is executed
// in it later, and containers may use keyctl(2), which runtimes inside need. With
// containerd's session keyring (keyrings(7)), or that of the administrator who
// started it, such a program could read, change and revoke the keys in there.
func (m manager) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	debug.SetGCPercent(gcPercent)
	if err := ungroup(".", params.Namespace, params.InstanceID); err != nil {
		return nil, err
	}
	// A keyring belongs to a thread, and this thread forks the shim.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := newSession(); err != nil {
		log.G(ctx).Warnf("isolate: programs executed in containers may reach the keys of containerd's session: %v", err)
	}
	return m.Shim.Start(ctx, params)
}

// gcPercent keeps the garbage collector from running in a process that ends in a few ms.
// With upstream's 40 % one run comes before the end: 1 to 2 ms of CPU.
const gcPercent = 400

// newSession puts the thread, and what it forks, into an empty session keyring.
func newSession() error {
	const anonymous = 0
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, anonymous, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) { // a kernel without keys
		return fmt.Errorf("join a new session keyring: %w", err)
	}
	return nil
}
