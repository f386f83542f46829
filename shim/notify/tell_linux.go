// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// Tell says what sysinfo(2) is to tell a thread, by its number here. It waits for nobody.
type Tell func(tid int) (sysinfo.Info, error)

// errSpent means that half of the budget is spent: then the host's values have to do.
var errSpent = errors.New("the container makes too many calls")

// info answers a sysinfo(2). What cannot be answered in time goes on, and the kernel
// tells of the host: the answer is no permission, so no harm is done.
func (n *Notifier) info(raw syscall.RawConn, req notification, layout sysinfo.Layout) {
	answer := response{id: req.id}
	err := n.inform(raw, req, layout)
	if err != nil {
		answer.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	n.send(raw, answer)
	n.informed(err)
}

// informed logs the first time that a call went on.
func (n *Notifier) informed(err error) {
	if err == nil || n.ctx.Err() != nil || errors.Is(err, errGone) {
		return
	}
	const message = "isolate: sysinfo(2) tells a process of the host"
	switch { // the container can make any number
	case !n.toldOfHost.Swap(true):
		// A busy machine or the container itself can be the cause, so it is no warning.
		log.G(n.ctx).WithError(err).Info(message)
	case !errors.Is(err, errSpent):
		log.G(n.ctx).WithError(err).Debug(message)
	}
}

// inform writes what n.tell says into the caller's memory.
func (n *Notifier) inform(raw syscall.RawConn, req notification, layout sysinfo.Layout) error {
	deadline := time.Now().Add(Limit)
	if req.pid == 0 {
		return errors.New("the process is outside of this pid namespace")
	}
	address := req.data.args[0]
	if layout == sysinfo.Narrow {
		address &= math.MaxUint32
	}
	// The descriptor belongs to the caller's memory for good, whoever gets its number
	// later. As a process's own /proc/self/mem it writes to what is read-only, too.
	memory, err := openFile(fmt.Sprintf("/proc/%d/mem", req.pid), unix.O_WRONLY)
	if err == nil {
		defer memory.Close()
		var info sysinfo.Info
		if info, err = n.tell(int(req.pid)); err == nil && valid(raw, req) {
			return n.pen.write(memory, address, info.Encode(layout), deadline)
		}
	}
	if !valid(raw, req) {
		return errGone
	}
	return err
}
