// SPDX-License-Identifier: Apache-2.0

package member

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// Process is a process that was proved to belong to a container. It is held, so
// that it stays the same one until Close.
type Process struct {
	*proc.Process

	of     Container
	traits traits
}

// Verify holds a process that somebody says is the container's, and proves it:
// one of its own processes or of the containers inside it. Otherwise the error
// matches [ErrForeign], or [proc.ErrEnded] if there is no such process.
func Verify(pid int, of Container) (*Process, error) {
	held, err := proc.Open(pid)
	if err != nil {
		return nil, err
	}
	p, err := prove(held, of)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return p, nil
}

// prove is [Verify] for a process that is held already. It is the same one that is
// held by what Prove returns.
func prove(held *proc.Process, of Container) (*Process, error) {
	t, err := look(held, of.Cgroups)
	// Whatever could not be read of a process that has ended.
	if ended, waitErr := held.Ended(0); ended || waitErr != nil {
		return nil, errors.Join(fmt.Errorf("process %d: %w", held.PID(), proc.ErrEnded), waitErr)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w: %w", held.PID(), ErrForeign, err)
	}
	if why := of.foreign(held.PID(), t); why != "" {
		return nil, fmt.Errorf("process %d: %w: %s", held.PID(), ErrForeign, why)
	}
	return &Process{Process: held, of: of, traits: t}, nil
}

// Dup holds the process a second time, for somebody else to close.
func (p *Process) Dup() (*Process, error) {
	held, err := p.Process.Dup()
	if err != nil {
		return nil, err
	}
	return &Process{Process: held, of: p.of, traits: p.traits}, nil
}

// Confined tells whether the container's first process, before it runs its program, is as it
// was planned: in a user namespace of its own with the container's ids and, with
// ownPIDs, the first one of its pid namespace. Otherwise the error matches
// [ErrUnconfined].
func (p *Process) Confined(ownPIDs bool) error {
	if why := p.of.unconfined(p.traits, ownPIDs); why != "" {
		return fmt.Errorf("process %d: %w: %s", p.PID(), ErrUnconfined, why)
	}
	return nil
}

// Container returns what is known of the container once this is its first process:
// its namespaces as well.
func (p *Process) Container() Container {
	c := p.of
	if len(p.traits.users) > 0 {
		c.Userns = p.traits.users[0]
	}
	if len(p.traits.pids) > 0 {
		c.PIDs = p.traits.pids[0]
	}
	return c
}

// Inside runs fn in the mount namespace of the process; see
// [mount.InNamespace].
func (p *Process) Inside(fn func(*mount.Inside) error) error {
	return mount.InNamespace(p.Process, fn)
}

// look reads the traits of a process. They are its own if it has not ended
// afterwards.
func look(p *proc.Process, cgroups []string) (t traits, err error) {
	if t.users, err = lineage(p, "user", ns.Userns); err != nil {
		return t, err
	}
	if t.pids, err = lineage(p, "pid", ns.Parent); err != nil {
		return t, err
	}
	if t.mapping.UIDs, err = readMap(p, "uid_map"); err != nil {
		return t, err
	}
	if t.mapping.GIDs, err = readMap(p, "gid_map"); err != nil {
		return t, err
	}
	status, err := p.Read("status")
	if err != nil {
		return t, err
	}
	if t.numbers, t.child, err = parseStatus(string(status), os.Getpid()); err != nil {
		return t, err
	}
	t.cgroups, err = find(p, cgroups)
	return t, err
}

// lineage returns a namespace of the process and those above it, up to the one
// below ours; none for our own. above opens the next one.
func lineage(p *proc.Process, kind string, above func(*os.File) (*os.File, error)) ([]ns.ID, error) {
	ours, err := ns.Own(kind)
	if err != nil {
		return nil, err
	}
	f, err := p.Namespace(kind)
	if err != nil {
		return nil, err
	}
	var all []ns.ID
	for {
		id, err := ns.Of(f)
		if err != nil || id == ours {
			return all, errors.Join(err, f.Close())
		}
		all = append(all, id)
		next, err := above(f)
		if err := errors.Join(err, f.Close()); err != nil { // EPERM: not below ours
			return nil, err
		}
		f = next
	}
}

func readMap(p *proc.Process, name string) ([]idmap.Range, error) {
	content, err := p.Read(name)
	if err != nil {
		return nil, err
	}
	return idmap.ParseProcMap(string(content))
}

// parseStatus reads the numbers of a process and whether parent is its parent
// (proc_pid_status(5)).
func parseStatus(content string, parent int) (numbers []int, child bool, _ error) {
	for line := range strings.Lines(content) {
		name, values, _ := strings.Cut(line, ":")
		switch name {
		case "PPid":
			child = strings.TrimSpace(values) == strconv.Itoa(parent)
		case "NSpid":
			for field := range strings.FieldsSeq(values) {
				n, err := strconv.Atoi(field)
				if err != nil {
					return nil, false, fmt.Errorf("parse process status %q: %w", strings.TrimSpace(line), err)
				}
				numbers = append(numbers, n)
			}
		}
	}
	return numbers, child, nil
}

// hierarchies are the cgroup mounts of this mount namespace. They are read once: a
// host has them before it has containers.
var hierarchies struct {
	sync.Mutex
	mounts []*mountinfo.Info
}

func cgroupMounts() ([]*mountinfo.Info, error) {
	hierarchies.Lock()
	defer hierarchies.Unlock()
	if len(hierarchies.mounts) > 0 {
		return hierarchies.mounts, nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	hierarchies.mounts = mounts
	return mounts, nil
}

// find tells whether the process is in one of the cgroups. One that does not exist
// tells nothing: then the runtime has chosen another. Nor does the end of the process,
// at which the kernel shows "/" for cgroups of version 1.
func find(p *proc.Process, dirs []string) (membership, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return unknown, err
	}
	var groups []string
	for _, dir := range dirs {
		g := groupOf(dir, mounts)
		if g == "" {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(dir, &st) == nil {
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 {
		return unknown, nil
	}
	content, err := p.Read("cgroup")
	if err != nil {
		return unknown, err
	}
	if in(string(content), groups) {
		return inside, nil
	}
	content, err = p.Read("stat")
	if err != nil {
		return unknown, err
	}
	stat, err := proc.ParseStat(content)
	if err != nil || stat.Exiting {
		return unknown, err
	}
	return elsewhere, nil
}
