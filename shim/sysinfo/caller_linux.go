// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/linux/timens"
	"github.com/isolate-shim/isolate/shim/cgroup"
)

// pageSize is the unit of large memories.
var pageSize = uint64(os.Getpagesize()) //nolint:gosec // positive

// Source tells what sysinfo(2) is to tell the threads of a container.
type Source struct {
	mu    sync.Mutex
	loads map[string]loads // by the group's directory
}

// New returns a Source.
func New() *Source { return &Source{loads: map[string]loads{}} }

// Of tells what sysinfo(2) is to tell a thread. The thread must not end meanwhile, or
// the answer can be that of another. Of waits for nobody.
func (s *Source) Of(tid int) (Info, error) {
	first, err := firstOf(tid)
	if err != nil {
		return Info{}, err
	}
	memberships, ok := content(fmt.Sprintf("/proc/%d/cgroup", first))
	if !ok {
		return Info{}, fmt.Errorf("groups of process %d: %w", first, proc.ErrEnded)
	}
	g, err := groupOf(memberships, "memory", unifiedHost())
	if err != nil {
		return Info{}, err
	}
	var kernel unix.Sysinfo_t
	if err := unix.Sysinfo(&kernel); err != nil {
		return Info{}, os.NewSyscallError("sysinfo", err)
	}
	unit := uint64(kernel.Unit)
	host := Memory{Total: uint64(kernel.Totalram) * unit, SwapTotal: uint64(kernel.Totalswap) * unit} //nolint:unconvert // narrower on some platforms
	info := Info{Procs: kernel.Procs}
	if info.Memory, ok = memory(g, host, content); !ok {
		return Info{}, errors.New("the group of the process has no memory controller")
	}
	if g, err := groupOf(memberships, "pids", g.unified); err == nil {
		if text, ok := g.nearest(content, "pids.current"); ok {
			info.Procs = uint16(min(number(text), math.MaxUint16)) //nolint:gosec // fits
		}
	}
	if info.Loads, err = s.loadsOf(g, first); err != nil {
		return Info{}, err
	}
	info.Uptime, err = uptime(tid, first)
	return info, err
}

// groupOf finds the group of a controller.
func groupOf(memberships, controller string, unified bool) (group, error) {
	name, err := cgroup.Path(memberships, controller)
	if err != nil {
		return group{}, err
	}
	g := group{top: cgroupfs.Mountpoint, unified: unified}
	if !unified {
		g.top += "/" + controller
	}
	// lxcfs: prune_init_slice
	g.dir = strings.TrimSuffix(g.top+strings.TrimSuffix(name, "/init.scope"), "/")
	return g, nil
}

var unifiedHost = sync.OnceValue(func() bool {
	dirs, err := cgroupfs.Dirs("/")
	return err == nil && len(dirs) == 1 && dirs[0] == cgroupfs.Mountpoint
})

var ownPidns = sync.OnceValues(func() (ns.ID, error) { return ns.Own("pid") })

// firstOf returns the first process of a thread's pid namespace. Where the kernel does
// not tell (before Linux 6.11), it is the thread's eldest ancestor in that namespace:
// for what is executed in a container, the program itself, which is in a group of the
// container too. In this process's own namespace it is the thread itself, as for lxcfs.
func firstOf(tid int) (int, error) {
	own, err := ownPidns()
	if err != nil {
		return 0, err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("pid namespace of thread %d: %w", tid, err)
	}
	f := os.NewFile(uintptr(fd), "pid namespace")
	defer f.Close()
	its, err := ns.Of(f)
	if err != nil || its == own {
		return tid, err
	}
	if first, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.NS_GET_TGID_FROM_PIDNS, 1); errno == 0 && first > 0 {
		return int(first), nil
	}
	return eldest(tid, its)
}

// generations bounds how far eldest looks.
const generations = 64

func eldest(pid int, pidns ns.ID) (int, error) {
	for range generations {
		stat, err := statOf(pid)
		if err != nil {
			return 0, err
		}
		// An ancestor in another namespace is in one above, or it has entered this one. One
		// that has just ended is in none.
		if its, _ := ns.At(fmt.Sprintf("/proc/%d/ns/pid", stat.Parent)); its != pidns {
			break
		}
		pid = stat.Parent
	}
	return pid, nil
}

// uptime is how long a thread takes its machine to be up. In a time namespace the kernel
// knows; otherwise it is the age of the container's first process, as in lxcfs. Begun
// seconds count, as in the kernel.
func uptime(tid, first int) (int64, error) {
	age := time.Duration(0)
	offset, err := offsetOf(tid)
	switch {
	case err != nil:
	case offset != nil:
		age, err = booted()
		age += time.Duration(offset.Secs) * time.Second
	default:
		age, err = ageOf(first)
	}
	return int64((max(0, age) + time.Second - 1) / time.Second), err
}

// ageOf is how long ago a process was started.
func ageOf(pid int) (time.Duration, error) {
	stat, err := statOf(pid)
	if err != nil {
		return 0, err
	}
	now, err := booted()
	return now - time.Duration(stat.Start)*proc.Tick, err //nolint:gosec // fits for centuries
}

// booted is how long ago the machine was started.
func booted() (time.Duration, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano()), os.NewSyscallError("clock_gettime", err)
}

var errOwnClocks = errors.New("the process is about to have children with other clocks")

// offsetOf is the offset of a thread's boot clock; nil if its time namespace is the
// shim's own.
func offsetOf(tid int) (*timens.Offset, error) {
	own, err := ns.Own("time")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // a kernel without
	}
	its, err2 := ns.At(fmt.Sprintf("/proc/%d/ns/time", tid))
	if err := errors.Join(err, err2); err != nil || own == its {
		return nil, err
	}
	// timens_offsets is about the clocks of its children.
	children, err := ns.At(fmt.Sprintf("/proc/%d/ns/time_for_children", tid))
	if err != nil {
		return nil, err
	}
	if children != its {
		return nil, errOwnClocks
	}
	offsets, err := timens.OfChildren(tid)
	return &offsets.Boottime, err
}

func statOf(pid int) (proc.Stat, error) {
	text, ok := content(fmt.Sprintf("/proc/%d/stat", pid))
	if !ok {
		return proc.Stat{}, fmt.Errorf("process %d: %w", pid, proc.ErrEnded)
	}
	return proc.ParseStat([]byte(text))
}

// content reads a small file of the kernel's. It is os.ReadFile without what that does
// for files that can be waited for, which takes longer than to read.
func content(path string) (string, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var buf [8192]byte
	var all []byte
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", false
		case n == 0:
			return string(all), true
		default:
			all = append(all, buf[:n]...)
		}
	}
}
