// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/fork"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// Namespace is a user namespace for a container, until the container's own processes are
// in it, and a time namespace.
type Namespace struct {
	// File is the namespace.
	File *os.File
	// Holder is the child that is in it and has made a time namespace that belongs to
	// it; see [timens.Of].
	Holder *fork.Holder

	release chan struct{}
	ended   chan error
}

// NewOwned makes a user namespace that belongs to the host user who is
// the container's root.
//
// The kernel charges what is used in a user namespace (inotify, pending signals,
// namespaces, processes) to its owner as well, in the namespace above
// (kernel/ucount.c). If that were root, a container could use up what the host's
// root has. The owner is the effective user of the creator; the real one stays
// root, since otherwise the creator's RLIMIT_NPROC became a limit of the whole
// namespace (enforced_nproc_rlimit in kernel/user_namespace.c).
func NewOwned(m idmap.Mapping) (*Namespace, error) {
	if err := m.Valid(); err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	root, ok := m.RootUID()
	if !ok {
		return nil, fmt.Errorf("create user namespace: mapping %s has no root to own it", m)
	}
	n := &Namespace{release: make(chan struct{}), ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		n.ended <- thread.AsEffectiveUser(uint32(root), func() (err error) {
			// The time namespace costs nearly nothing here, and a child of its own elsewhere.
			if n.Holder, err = fork.Hold(unix.CLONE_NEWUSER, nil, unix.CLONE_NEWTIME); err != nil {
				return fmt.Errorf("create user namespace: %w", Explain(err))
			}
			if n.File, err = mapped(n.Holder.Process, m); err == nil {
				close(ready)
				<-n.release // the child dies with this thread
			}
			return errors.Join(err, n.Holder.End())
		})
	}()
	select {
	case <-ready:
		return n, nil
	case err := <-n.ended:
		return nil, err
	}
}

// Path is the name of the namespace for a runtime, valid until Close. It is that
// of a process, since runc 1.2 to 1.5 take the mapping of a namespace at
// /proc/PID/fd/N for the one of that process (libcontainer/internal/userns).
func (n *Namespace) Path() string { return n.Holder.Path("ns/user") }

// Close lets go of the namespace.
func (n *Namespace) Close() error {
	close(n.release)
	return errors.Join(<-n.ended, n.File.Close())
}
