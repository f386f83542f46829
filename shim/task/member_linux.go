// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
	"github.com/isolate-shim/isolate/spec"
)

// execution is a process that a client has added to a container.
type execution struct {
	// started is closed when the runtime has made it, or has failed; nil before it
	// is asked to.
	started chan struct{}
	// process was proved to be the container's; nil if there is none any more. It may
	// have ended: see alive.
	process *member.Process
	// err tells why the process that the runtime has reported was not believed.
	err error
}

// expect notes in the record which namespaces the container will join, by the spec that
// the runtime reads.
func (c *creation) expect() error {
	for kind, at := range map[specs.LinuxNamespaceType]**ns.ID{specs.UserNamespace: &c.record.Userns, specs.PIDNamespace: &c.record.PIDs} {
		n := spec.Namespace(c.doc.Spec, kind)
		if n == nil || n.Path == "" {
			continue
		}
		f, err := os.Open(n.Path)
		if err != nil {
			return fmt.Errorf("%s namespace: %w", kind, err)
		}
		id, err := ns.Of(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s namespace: %w", kind, err)
		}
		*at = &id
	}
	return nil
}

// verify proves that the process that a runtime has reported is the container's
// first process, and is as it was planned.
func (c *container) verify(pid int) error {
	p, err := member.Verify(pid, c.record.Member())
	if err != nil {
		return fmt.Errorf("container %q: its runtime %s has reported a pid that is not to be believed, and nothing was done to that process: %w", c.id, c.record.Runtime.Path, err)
	}
	c.init = p
	c.record.Verified(p)
	if err := c.record.Stated(); err != nil {
		return fmt.Errorf("container %q: the state of its runtime %s names a pid that is not to be believed, and nothing was done to that process: %w", c.id, c.record.Runtime.Path, err)
	}
	if err := p.Confined(c.ownPIDs); err != nil {
		return fmt.Errorf("container %q: its runtime %s has not made what isolate has planned, so it was not started: %w", c.id, c.record.Runtime.Path, err)
	}
	return nil
}

// reported proves the pid that a runtime has written down, before upstream reads
// it: upstream changes the cgroup of that process, waits for its end and sends it
// signals.
func (s *Service) reported(r report) error {
	pid, err := runc.ReadPidFile(r.PIDFile)
	if err != nil {
		return nil //nolint:nilerr // upstream reads it next
	}
	if r.Command == "exec" {
		return s.executed(r, pid)
	}
	s.mu.Lock()
	c := s.containers[r.ID] // it is being restored
	if creation := s.creations[r.ID]; creation != nil {
		c = creation.container
	}
	s.mu.Unlock()
	if c == nil {
		return fmt.Errorf("container %q is not being created", r.ID)
	}
	c.refused = c.verify(pid)
	if c.refused == nil && r.Command == "restore" { // settle was before there was a process
		return c.record.Save()
	}
	return c.refused
}

// executed proves a process that was added.
func (s *Service) executed(r report, pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[r.ID]
	if c == nil {
		return fmt.Errorf("container %q does not exist", r.ID)
	}
	e := c.execs[strings.TrimSuffix(filepath.Base(r.PIDFile), ".pid")]
	if e == nil {
		return fmt.Errorf("container %q has no process %q to start", r.ID, filepath.Base(r.PIDFile))
	}
	for _, other := range c.execs {
		other.alive()
	}
	p, err := member.Verify(pid, c.record.Member())
	switch {
	case err == nil:
		e.process = p
	case errors.Is(err, proc.ErrEnded): // nobody is there to be taken for it
	default:
		e.err = fmt.Errorf("its runtime %s has reported a pid that is not to be believed, and nothing was done to that process: %w", r.Runtime, err)
	}
	return e.err
}

// startExec starts a process that was added.
func (s *Service) startExec(ctx context.Context, c *container, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	e := &execution{started: make(chan struct{})}
	s.mu.Lock()
	if old, ok := c.execs[r.ExecID]; ok && (old == nil || old.started == nil) {
		c.execs[r.ExecID] = e
	} else {
		e = nil // upstream refuses it
	}
	s.mu.Unlock()
	if e != nil {
		defer close(e.started)
	}
	resp, err := s.TTRPCTaskService.Start(ctx, r)
	if err != nil && e != nil && e.err != nil {
		return nil, toGRPC(fmt.Errorf("exec %q in container %q: %w", r.ExecID, r.ID, e.err))
	}
	return resp, err
}

// killExec sends a signal to a process that was added. Upstream would send it to a
// number.
func (s *Service) killExec(ctx context.Context, c *container, r *taskAPI.KillRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	e := c.execs[r.ExecID]
	s.mu.Unlock()
	if e == nil || e.started == nil {
		return s.TTRPCTaskService.Kill(ctx, r) // answers that there is none
	}
	select {
	case <-e.started:
	case <-time.After(answerAfter):
		return s.TTRPCTaskService.Kill(ctx, r) // ends the start
	}
	err := proc.ErrEnded
	s.mu.Lock() // forgetExec closes it
	defer s.mu.Unlock()
	if p := e.alive(); p != nil {
		err = p.Signal(unix.Signal(r.Signal)) //nolint:gosec // the kernel refuses what is none
	}
	if errors.Is(err, proc.ErrEnded) {
		err = fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, toGRPC(fmt.Errorf("kill exec %q in container %q: %w", r.ExecID, r.ID, err))
	}
	return &emptypb.Empty{}, nil
}

// forgetExec lets go of a process that was deleted.
func (s *Service) forgetExec(c *container, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.execs[id].close()
	delete(c.execs, id)
}

// alive returns the process, or nil. It lets go of one that has ended: some clients delete
// none, and then what is held of each would stay for as long as the container; and its pid
// goes to another process. The caller has the service's mutex.
func (e *execution) alive() *member.Process {
	if e == nil || e.process == nil {
		return nil
	}
	if ended, err := e.process.Ended(0); err == nil && ended {
		e.close()
	}
	return e.process
}

func (e *execution) close() {
	if e != nil && e.process != nil {
		e.process.Close()
		e.process = nil
	}
}
