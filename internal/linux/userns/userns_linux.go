// SPDX-License-Identifier: Apache-2.0

// Package userns makes user namespaces with a mapping (user_namespaces(7)).
package userns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// ErrInside means that this process is no root of the host's, since
// it runs in a user namespace: there its kernel maps what was mounted there,
// and gives out the ids of that namespace alone.
var ErrInside = errors.New("isolate itself runs in a user namespace, as inside a container; it works on the host only, so use runc or crun inside")

// New returns a new user namespace with the given mapping, held by
// nothing but the returned file. It serves as the mapping of id-mapped mounts:
// it belongs to the caller's user, and setgroups(2) is allowed in it.
//
// A process must exist while the mapping is written; it is gone when New
// returns, and dies with the caller if that is killed half way. Why not
// containerd's mount.GetUsernsFD: its child is stopped by ptrace, which
// kernel.yama.ptrace_scope=3 forbids, whose stop a SIGCHLD reaper in the same
// process (every shim has one) takes for an exit, and in whose namespace Go has
// denied setgroups for good.
func New(m idmap.Mapping) (*os.File, error) {
	if err := m.Valid(); err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	// The child is killed when the thread that made it ends (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := fork.Idle(unix.CLONE_NEWUSER)
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", Explain(err))
	}
	ns, err := mapped(child, m)
	if err != nil {
		return nil, errors.Join(err, child.End())
	}
	if err := child.End(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// mapped maps the ids of a new user namespace, in which the child is, and opens it. The
// mapping must be valid.
func mapped(child *fork.Process, m idmap.Mapping) (*os.File, error) {
	err := writeMap(child.Path("uid_map"), m.UIDs)
	if err == nil {
		err = writeMap(child.Path("gid_map"), m.GIDs)
	}
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", Explain(err))
	}
	path := child.Path("ns/user")
	fd, err := eintr.Get(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), "userns:"+m.String()), nil
}

// writeMap writes an id map in the single write(2) the kernel accepts.
func writeMap(path string, ranges []idmap.Range) error {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Container, r.Host, r.Size)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Close())
}

// Explain adds to an error of making a user namespace what the administrator can do about it.
func Explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM) && Inside():
		return fmt.Errorf("%w: %w", err, ErrInside)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("the limit in /proc/sys/user/max_user_namespaces is reached, raise it: %w", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel is built without CONFIG_USER_NS: %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("needs CAP_SYS_ADMIN, no chroot, and a security module that allows it: %w", err)
	}
	return err
}

// Host returns [ErrInside] unless this process is in the host's user namespace.
func Host() error {
	if Inside() {
		return ErrInside
	}
	return nil
}

// Inside tells whether this process lacks some of the host's ids, which
// only those in a user namespace do.
func Inside() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(data)), []string{"0", "0", "4294967295"})
}
