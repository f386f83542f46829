// SPDX-License-Identifier: Apache-2.0

package timens

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// Namespace is a time namespace in which there is no process yet.
type Namespace struct {
	holder  *fork.Holder
	release chan struct{} // nil if the holder is somebody else's
	ended   chan error
}

// New makes a time namespace that belongs to a user namespace.
//
// An OCI runtime could make it, too, but crun opens timens_offsets as the container's
// root, which the kernel denies (1.8.4 to 1.29), and knows no offsets before.
func New(userns *os.File, o Offsets) (*Namespace, error) {
	n := &Namespace{release: make(chan struct{}), ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		// The child dies with this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		if n.holder, err = fork.Hold(0, userns, unix.CLONE_NEWTIME); err == nil {
			if err = n.set(o); err == nil {
				close(ready)
				<-n.release
			}
			err = errors.Join(err, n.holder.End())
		}
		n.ended <- err
	}()
	select {
	case <-ready:
		return n, nil
	case err := <-n.ended:
		return nil, fmt.Errorf("make time namespace: %w", err)
	}
}

// Of is [New] for a child that makes the namespace already, by unshare(2): with clone3(2)
// the child would be in the namespace, and offsets can be set only while no process is.
// The namespace belongs to the user namespace of the child, and ends with it.
func Of(holder *fork.Holder, o Offsets) (*Namespace, error) {
	n := &Namespace{holder: holder}
	if err := n.set(o); err != nil {
		return nil, fmt.Errorf("make time namespace: %w", err)
	}
	return n, nil
}

// set sets the offsets, once the namespace is there.
func (n *Namespace) set(o Offsets) error {
	if err := n.holder.Made(); err != nil {
		return explain(err)
	}
	return os.WriteFile(n.holder.Path("timens_offsets"), []byte(o.String()), 0)
}

// Path is the path of the namespace for a runtime, valid until Close.
func (n *Namespace) Path() string { return n.holder.Path("ns/time_for_children") }

// Close ends the process that keeps the namespace, if New has started it.
func (n *Namespace) Close() error {
	if n.release == nil {
		return nil
	}
	close(n.release)
	return <-n.ended
}

// explain adds what the administrator can do about it.
func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the limit in /proc/sys/user/max_time_namespaces is reached, raise it: %w", err)
	}
	return err
}
