// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"math"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// mount has an overlay prepared that a container is about to mount, or gives up after
// Limit, and lets the call go on.
func (n *Notifier) mount(raw syscall.RawConn, req notification, proceed func()) {
	timer := time.AfterFunc(Limit, proceed)
	defer timer.Stop()
	defer proceed()
	err := n.prepare(raw, req)
	if err == nil || n.ctx.Err() != nil || errors.Is(err, errGone) {
		return
	}
	l := log.G(n.ctx).WithError(err)
	const message = "isolate: an overlay inside may fail to be mounted"
	if n.warnings.Add(1) > maxWarnings { // the container can make any number
		l.Debug(message)
	} else {
		l.Warn(message)
	}
}

func (n *Notifier) prepare(raw syscall.RawConn, req notification) error {
	if req.pid == 0 {
		return errors.New("the process is outside of this pid namespace")
	}
	t, err := open(req.pid)
	if !valid(raw, req) { // see graft
		err = errGone
	}
	if err != nil {
		t.close()
		return err
	}
	deadline := time.Now().Add(Limit)
	o, err := n.overlay(t, req, deadline)
	if err != nil || o.Upper == "" || o.Work == "" {
		t.close()
		return ignoring(err)
	}
	return n.wait(t, deadline, func() error { return n.shelve(o) })
}

// overlay reads which overlay a thread is about to mount, if it is one.
func (n *Notifier) overlay(t *thread, req notification, deadline time.Time) (Overlay, error) {
	o := Overlay{Root: t.root, Cwd: t.cwd, Mounts: t.mntns}
	if t.memory == nil {
		return o, nil // nothing can be known of it
	}
	kind, options := req.data.args[2], req.data.args[4]
	if layout, _ := sysinfo.LayoutOf(req.data.arch, 0); layout == sysinfo.Narrow {
		kind, options = kind&math.MaxUint32, options&math.MaxUint32
	}
	const overlay = "overlay\x00"
	name, err := n.pen.read(t.memory, kind, len(overlay), deadline)
	if err != nil || string(name) != overlay {
		return o, err
	}
	text, err := n.pen.read(t.memory, options, maxOptions, deadline)
	o.Upper, o.Work = layers(text)
	return o, err
}

// wait has something done for a thread, which is closed then, and waits for it until the
// deadline at most: layers of the rootfs can be on a server that hangs.
func (n *Notifier) wait(t *thread, deadline time.Time, work func() error) error {
	select {
	case n.slots <- struct{}{}:
	default:
		t.close()
		return errors.New("too many others are being prepared")
	}
	done := make(chan error, 1)
	go func() { // Close does not wait for it
		var err error
		n.budget.spend(metered(func() { err = work() }))
		t.close()
		<-n.slots
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Until(deadline)):
		return errors.New("to prepare it takes too long")
	}
}

// maxOptions is a page, of which mount(2) takes no more.
const maxOptions = 4096

// ignoring drops an error of the caller's memory: it is the caller's.
func ignoring(err error) error {
	if errors.As(err, new(syscall.Errno)) {
		return nil
	}
	return err
}
