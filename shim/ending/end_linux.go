// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/fusectl"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
)

// Container is a container to be ended.
type Container struct {
	// ID is the container's name, for messages.
	ID string
	// First is its first process; zero if there was none yet.
	First proc.ID
	// Member tells which other processes belong to the container.
	Member member.Container
	// Peers returns other containers that have some of its ids. They must not be harmed.
	Peers func() []Peer
}

// Peer is another container.
type Peer struct {
	// Name is what it is called in messages.
	Name string
	member.Container
}

// End kills the container and returns when no process of it is left. If ctx ends
// before, the error names the processes that are left.
func End(ctx context.Context, c Container) error {
	first, err := c.First.Open()
	if errors.Is(err, proc.ErrEnded) || c.First == (proc.ID{}) {
		first = nil
	} else if err != nil {
		return fmt.Errorf("end container %q: %w", c.ID, err)
	}
	e := end{Container: c, first: first}
	defer e.close()
	if err := e.run(ctx); err != nil {
		return fmt.Errorf("end container %q: %w", c.ID, err)
	}
	return nil
}

// end is the ending of one container.
type end struct {
	Container
	first    *proc.Process // nil if it has ended
	started  time.Time     // of the first SIGKILL
	reported bool
	unread   bool  // the log names the peers whose mounts cannot be read in time
	others   []int // pids that the last call of each has seen
}

func (e *end) close() {
	if e.first != nil {
		e.first.Close()
	}
}

func (e *end) run(ctx context.Context) error {
	for {
		o, err := e.look(ctx)
		if err != nil {
			return err
		}
		s := next(o)
		if s.done {
			e.release(ctx)
			return nil
		}
		if err := e.take(ctx, s); err != nil {
			return err
		}
		if err := e.pause(ctx, s.wait); err != nil {
			return errors.Join(err, e.left())
		}
	}
}

// look observes the container. It looks for other processes only when the first one has
// ended: the kernel ends the pid namespace before it shows the first process as ended.
func (e *end) look(ctx context.Context) (observed, error) {
	o := observed{since: -1, reported: e.reported}
	if !e.started.IsZero() {
		o.since = time.Since(e.started)
	}
	if e.first != nil {
		ended, err := e.first.Ended(0)
		if err != nil {
			return o, err
		}
		if o.first = !ended; o.first {
			return o, nil
		}
		err = e.first.Close()
		e.first = nil
		if err != nil {
			return o, err
		}
	}
	err := e.each(ctx, func(*member.Process) error { o.others = true; return nil })
	return o, err
}

// take takes a step.
func (e *end) take(ctx context.Context, s step) error {
	if s.kill || s.all {
		if err := e.kill(ctx, s.all); err != nil {
			return err
		}
	}
	if s.abort {
		if err := e.abort(ctx); err != nil && !e.reported {
			log.G(ctx).WithError(err).WithField("id", e.ID).Warn("isolate: cannot end the FUSE connections of a container that does not end")
		}
	}
	if s.report {
		e.reported = true
		log.G(ctx).WithField("id", e.ID).Warnf("isolate: the container does not end, and isolate tries again: %v", e.left())
	}
	return nil
}

// kill sends SIGKILL to the first process, or to all, and thaws the groups. With all
// set, it also lifts the limits that the container has given groups of its own.
func (e *end) kill(ctx context.Context, all bool) error {
	if e.started.IsZero() {
		e.started = time.Now()
	}
	if e.first != nil {
		if err := e.first.Signal(unix.SIGKILL); err != nil && !errors.Is(err, proc.ErrEnded) {
			return err
		}
	}
	if all || e.first == nil {
		if err := e.each(ctx, func(p *member.Process) error { return p.Signal(unix.SIGKILL) }); err != nil {
			return err
		}
	}
	var errs []error
	for _, dir := range e.Member.Cgroups {
		errs = append(errs, cgroupfs.Thaw(ctx, dir))
		if all {
			errs = append(errs, cgroupfs.Lift(ctx, dir, e.owns))
		}
	}
	return errors.Join(errs...)
}

// owns tells whether a user of the host is one of the container's.
func (e *end) owns(uid uint32) bool {
	_, ok := e.Member.Mapping.UIDToContainer(idmap.HostID(uid))
	return ok
}

// each calls fn for the container's processes in the first of its cgroups that has any.
// A process is in a group of every hierarchy, unless the runtime was killed before it
// had put the process into all of them.
func (e *end) each(ctx context.Context, fn func(*member.Process) error) error {
	e.others = nil
	for _, dir := range e.Member.Cgroups {
		if len(e.others) > 0 {
			break
		}
		err := eachIn(ctx, dir, e.Member, func(p *member.Process) error {
			e.others = append(e.others, p.PID())
			return fn(p)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachIn calls fn for the processes of a cgroup, and of those below, that are proved to
// be a container's. A process may end meanwhile.
func eachIn(ctx context.Context, dir string, of member.Container, fn func(*member.Process) error) error {
	pids, err := cgroupfs.Processes(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := verify(pid, of)
		if errors.Is(err, proc.ErrEnded) || errors.Is(err, member.ErrForeign) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(fn(p), p.Close()); err != nil && !errors.Is(err, proc.ErrEnded) {
			return err
		}
	}
	return nil
}

// verify proves that a process in one of the container's cgroups belongs to the
// container. The second try is for a process in a group that is nested so deep that the
// kernel does not tell its path.
func verify(pid int, of member.Container) (*member.Process, error) {
	p, err := member.Verify(pid, of)
	if errors.Is(err, member.ErrForeign) {
		of.Cgroups = nil
		p, err = member.Verify(pid, of)
	}
	return p, err
}

// release ends connections in which a process still waits for a server of the ended
// container: a thread of the shim that looked up a path in its mounts. If another
// container has the same ids, release cannot tell whose a connection is, and leaves it.
func (e *end) release(ctx context.Context) {
	some, err := e.candidates()
	if some && (e.Peers == nil || len(e.Peers()) == 0) {
		err = e.abort(ctx)
	}
	if err != nil { // isolate in a container cannot reach any connection
		log.G(ctx).WithError(err).WithField("id", e.ID).Debug("isolate: FUSE connections of a container that has ended")
	}
}

// candidates tells whether a process waits in a connection whose owner has an id of the
// container.
func (e *end) candidates() (some bool, _ error) {
	own := connections{ids: e.Member.Mapping.UIDs}
	_, err := fusectl.Abort(func(c fusectl.Connection) bool {
		some = some || own.abort(c)
		return false
	})
	return some, err
}

// abort ends the container's FUSE connections in which a process waits.
func (e *end) abort(ctx context.Context) error {
	if some, err := e.candidates(); !some {
		return err
	}
	own := connections{ids: e.Member.Mapping.UIDs, foreign: map[uint32]bool{}, own: map[uint32]bool{}, seen: map[ns.ID]bool{}}
	if err := own.host(); err != nil {
		return err
	}
	if e.Peers != nil {
		for _, peer := range e.Peers() {
			if err := own.peer(ctx, peer); err != nil {
				return err
			}
		}
	}
	if len(own.unread) > 0 {
		if err := e.ownMounts(ctx, &own); err != nil {
			return err
		}
	}
	aborted, err := fusectl.Abort(own.abort)
	for _, c := range aborted {
		log.G(ctx).WithField("id", e.ID).Infof("isolate: ended %v, because processes of the container wait for its server", c)
	}
	return err
}

// ownMounts looks at the container's own mounts, because those of others could not be
// read. If these cannot be read in time either, those that were found count.
func (e *end) ownMounts(ctx context.Context, own *connections) error {
	if !e.unread {
		e.unread = true
		log.G(ctx).WithField("id", e.ID).Warnf("isolate: the mounts of container %s cannot be read within %v; until it ends, only those FUSE connections are ended that show in the mounts of this container",
			strings.Join(own.unread, " and of "), peerTime)
	}
	within, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	err := e.each(within, func(p *member.Process) error { return own.self(within, p) })
	if late(err) {
		return ctx.Err()
	}
	return err
}

// pause waits for the end of the first process, at most d; if that has ended, for d.
func (e *end) pause(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, max(0, time.Until(deadline)))
	}
	var err error
	if e.first != nil {
		_, err = e.first.Ended(d)
	} else {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	return errors.Join(err, ctx.Err())
}
