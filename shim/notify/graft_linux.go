// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// result is the outcome of one notification, for the log.
type result string

// The outcomes without an error.
const (
	nothing result = "no /proc there" // no inner container
	covered result = "covered"        // the inner runtime has mounted its own
	grafted result = "grafted"
)

// errGone means that the caller has ended.
var errGone = errors.New("the process is gone")

// graft puts the views over the files of the /proc and /sys of the root that a
// thread is about to change to.
func (n *Notifier) graft(ctx context.Context, req notification, valid func() bool) (result, error) {
	if req.pid == 0 {
		return "", errors.New("the process is outside of this pid namespace")
	}
	t, err := open(req.pid)
	if err != nil {
		if !valid() {
			return "", errGone
		}
		return "", err
	}
	t.budget = &n.budget
	defer t.close()
	// The thread waits for the answer. If it still waits, the files that were opened
	// by its number are its own.
	if !valid() {
		return "", errGone
	}
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return "", errors.New("too many helper processes hang in the container's file systems")
	}
	inUse := true
	defer func() {
		if inUse {
			<-n.slots
		}
	}()
	var r result
	for range 2 { // once more with views of a new server
		var views []lxcfs.File
		views, err = n.store.take(ctx)
		if err != nil {
			break
		}
		var stuck *child
		r, stuck, err = t.graft(ctx, views, req.data.args[0])
		lxcfs.CloseFiles(views)
		if stuck != nil {
			inUse = false
			go func() { // Close does not wait for it
				stuck.reap()
				n.budget.spend(stuck.used)
				<-n.slots
			}()
		}
		if errors.Is(err, errHung) {
			n.store.hung()
		}
		if !errors.Is(err, errDead) {
			break
		}
		n.store.drop()
	}
	return r, err
}

// thread is the caller, by descriptors.
type thread struct {
	cwd, root *os.File
	mntns     *os.File
	userns    *os.File // that owns mntns
	memory    *os.File // nil if it may not be read
	budget    *budget
}

// open opens what belongs to a thread. None of it waits for a file system.
func open(tid uint32) (_ *thread, retErr error) {
	t := &thread{}
	defer func() {
		if retErr != nil {
			t.close()
		}
	}()
	proc := fmt.Sprintf("/proc/%d/", tid)
	var err error
	if t.cwd, err = openFile(proc+"cwd", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, err
	}
	if t.root, err = openFile(proc+"root", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return nil, err
	}
	if t.mntns, err = openFile(proc+"ns/mnt", unix.O_RDONLY); err != nil {
		return nil, err
	}
	if t.userns, err = ns.Userns(t.mntns); err != nil {
		return nil, err
	}
	// kernel.yama.ptrace_scope=3 forbids this. Then the child takes the working
	// directory, to which nearly all runtimes pivot.
	t.memory, err = openFile(proc+"mem", unix.O_RDONLY)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	return t, t.foreign()
}

// openFile is os.OpenFile without its fstat(2), which would ask a file system
// that the container mounted.
func openFile(name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, unix.EINTR):
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// foreign makes sure that the mounts are a container's: owned by a user
// namespace other than the shim's.
func (t *thread) foreign() error {
	for name, theirs := range map[string]*os.File{"mnt": t.mntns, "user": t.userns} {
		ours, err := ns.Own(name)
		if err != nil {
			return err
		}
		its, err := ns.Of(theirs)
		if err != nil {
			return err
		}
		if its == ours {
			return fmt.Errorf("the process has no %s namespace of its own", name)
		}
	}
	return nil
}

func (t *thread) close() {
	if t == nil {
		return
	}
	for _, f := range []*os.File{t.cwd, t.root, t.mntns, t.userns, t.memory} {
		if f != nil {
			f.Close()
		}
	}
}

var (
	errDead = errors.New("the server of the views has died")
	errHung = errors.New("the server of the views does not answer")
)

// graft has a child do the work. A child that hangs is killed and returned, and the
// caller must reap it.
func (t *thread) graft(ctx context.Context, views []lxcfs.File, address uint64) (result, *child, error) {
	c, err := newChild(t, views, address)
	if err != nil {
		return "", nil, err
	}
	if err := c.start(); err != nil {
		c.release()
		return "", nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(Limit)
	}
	ended := c.wait(deadline)
	stage, errno, attached := c.outcome()
	var stuck *child
	if ended {
		t.budget.spend(c.used)
		c.release()
	} else {
		stuck = c
	}
	switch {
	case stage == stageServer && !ended:
		return "", stuck, errHung
	case !ended:
		return "", stuck, fmt.Errorf("%s takes too long", stage)
	case stage == stageServer:
		return "", nil, fmt.Errorf("%w: %w", errDead, errno)
	case stage == stageDone && attached > 0:
		return grafted, nil, nil
	case stage == stageDone && (errno == unix.EXDEV || errno == unix.ENOENT):
		return covered, nil, nil
	case stage == stageNothing:
		return nothing, nil, nil
	}
	return "", nil, fmt.Errorf("%s: %w", stage, errno)
}

// split splits the name of a view into the file system it is on and the path on
// that, and tells the magic number of the file system.
func split(name string) (top, rest string, magic int64, ok bool) {
	if path.Clean(name) != name {
		return "", "", 0, false
	}
	for top, magic := range map[string]int64{"proc": unix.PROC_SUPER_MAGIC, "sys": unix.SYSFS_MAGIC} {
		if len(name) > len(top)+1 && name[:len(top)+1] == top+"/" {
			return top, name[len(top)+1:], magic, true
		}
	}
	return "", "", 0, false
}
