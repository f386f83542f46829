// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/spec"
)

// limits are the resource limits of a container's processes. The shim sets them where
// runc cannot: runc's prlimit(2) needs CAP_SYS_RESOURCE in the user namespace of the
// process. Root of the host has that capability, unless the host has taken it from its
// root. Then only the owner of the namespace has it, who is the container's root. crun's
// processes limit themselves.
type limits struct {
	// owner owns the container's user namespace.
	owner idmap.HostID

	mu sync.Mutex
	// wanted are the limits of processes that have not been started yet: of the
	// first one (""), and of execs by their ids.
	wanted map[string][]specs.POSIXRlimit
}

// findLimits tells whether the shim has to set limits itself; nil if not.
func (c *creation) findLimits() (*limits, error) {
	if c.bin.Name != runtime.Runc {
		return nil, nil
	}
	path := plan.Userns(c.doc.Spec, &c.plan)
	if may, err := setsLimits(); err != nil || may || path == "" {
		return nil, err
	}
	userns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	defer userns.Close()
	owner, err := ns.Owner(userns)
	if err != nil || owner == uint32(os.Geteuid()) {
		return nil, err
	}
	return &limits{owner: idmap.HostID(owner), wanted: map[string][]specs.POSIXRlimit{}}, nil
}

// want keeps the limits of a process until it is there.
func (l *limits) want(exec string, wanted []specs.POSIXRlimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted[exec] = wanted
}

// set gives a process of the container its limits. The thread acts as the owner of the
// container's user namespace, and has no right over other processes.
func (l *limits) set(pid int, exec string) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	wanted := l.wanted[exec]
	delete(l.wanted, exec)
	l.mu.Unlock()
	if len(wanted) == 0 {
		return nil
	}
	return thread.AsUser(uint32(l.owner), func() error {
		for _, r := range wanted {
			resource, ok := resources[r.Type]
			if !ok {
				return fmt.Errorf("resource limit %q is unknown: %w", r.Type, spec.ErrRefused)
			}
			limit := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
			if resource == unix.RLIMIT_NOFILE {
				limit = belowOwn(limit)
			}
			err := unix.Prlimit(pid, resource, &limit, nil)
			if exec != "" && errors.Is(err, unix.ESRCH) {
				return nil // it was quick
			}
			if err != nil {
				return fmt.Errorf("set %s of process %d to %d (hard: %d): %w", r.Type, pid, r.Soft, r.Hard, os.NewSyscallError("prlimit", err))
			}
		}
		return nil
	})
}

// lent is the least number of files that the shim can do with.
const lent = 1024

// lend gives the shim the soft limit of open files that a process is to have. What
// runc starts inherits it, and so an exec has it before set can give it the rest.
func (l *limits) lend(exec string) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.wanted[exec] {
		if r.Type != "RLIMIT_NOFILE" || r.Soft < lent {
			continue
		}
		var own unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
			return fmt.Errorf("own limit of open files: %w", err)
		}
		own.Cur = min(r.Soft, own.Max)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
			return fmt.Errorf("own limit of open files: %w", err)
		}
	}
	return nil
}

// belowOwn keeps a limit of open files below the shim's own, unless the two are equal.
// runc inherits the shim's limit. When runc executes the container's first program, it
// puts that limit back unless it is forbidden to (Go's syscall.Exec).
func belowOwn(limit unix.Rlimit) unix.Rlimit {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil || limit == own || limit.Max < own.Max {
		return limit
	}
	return unix.Rlimit{Cur: min(limit.Cur, own.Max-1), Max: own.Max - 1}
}
