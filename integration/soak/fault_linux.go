// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// runDir is where isolate keeps what it knows.
const runDir = "/run/isolate"

// patience is how long a fault waits for what it is to hit.
const patience = 2 * time.Second

// inject makes a fault happen to a life, and undoes it after a while. It tells whether
// there was something to hit.
func (m *machine) inject(ctx context.Context, l Life, f Fault) (bool, error) {
	id := l.ID(l.Steps[f.Step].Container)
	record := filepath.Join(runDir, l.Namespace(), id, "record.json")
	switch f.Name {
	case KillShim:
		return signal(unix.SIGKILL, func() []int { return of(l, shimRole) })
	case KillRuntime:
		return signal(unix.SIGKILL, func() []int { return of(l, runtimeRole) })
	case KillClient:
		return signal(unix.SIGKILL, func() []int { return of(l, clientRole) })
	case KillInit:
		return signal(unix.SIGKILL, func() []int { return firstOf(id) })
	case StopShim:
		return stop(f.For, func() []int { return of(l, shimRole) })
	case StopRuntime:
		if f.For > longest/2 { // for ever
			return signal(unix.SIGSTOP, func() []int { return of(l, runtimeRole) })
		}
		return stop(f.For, func() []int { return of(l, runtimeRole) })
	case StarveShim:
		return starve(f.For, func() []int { return of(l, shimRole) })
	case RecordMissing:
		return await(func() bool { return os.Remove(record) == nil }), nil
	case RecordCut:
		return await(func() bool { return cut(record) }), nil
	case RecordGarbage:
		return await(func() bool { return overwrite(record) }), nil
	case Sealed:
		return seal(f.For, func() ([]string, error) { return []string{filepath.Dir(record)}, nil })
	case Full:
		return fill(f.For)
	case ReadOnly:
		return readOnly(f.For)
	case KillContainerd:
		return true, m.killContainerd()
	case KillLxcfs:
		return true, m.restartLxcfs(ctx, f.For)
	case StopLxcfs:
		return m.stopLxcfs(f.For)
	default:
		return false, fmt.Errorf("fault %q happens by a command of the runtime", f.Name)
	}
}

// arm makes a fault happen by a command of the runtime, for each container of a life.
func (m *machine) arm(l Life, f Fault) error {
	var errs []error
	for _, c := range l.Containers() {
		errs = append(errs, os.WriteFile(filepath.Join(m.faults, f.Verb+"-"+l.ID(c)), []byte(order(f)), 0o644))
	}
	return errors.Join(errs...)
}

// calm ends what would happen each time: nobody could get rid of the container then.
func (m *machine) calm(l Life) error {
	var errs []error
	for _, f := range l.Faults {
		for _, c := range l.Containers() {
			if f.Verb != "" && f.always() {
				errs = append(errs, remove(filepath.Join(m.faults, f.Verb+"-"+l.ID(c))))
			}
		}
	}
	return errors.Join(errs...)
}

// disarm ends what arm began, and tells which faults have happened.
func (m *machine) disarm(l Life) ([]Name, error) {
	var hit []Name
	var errs []error
	for _, c := range l.Containers() {
		for _, f := range l.Faults {
			if f.Verb == "" {
				continue
			}
			done := filepath.Join(m.faults, "hit-"+f.Verb+"-"+l.ID(c))
			if _, err := os.Lstat(done); err == nil {
				hit = append(hit, f.Name)
			}
			errs = append(errs, remove(done), remove(filepath.Join(m.faults, f.Verb+"-"+l.ID(c))))
		}
	}
	return hit, errors.Join(append(errs, remove(m.clientFile(l)))...)
}

// remove removes a file, if it is there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end fault: %w", err)
	}
	return nil
}

// await tries to hit something for a while.
func await(hit func() bool) bool {
	for deadline := time.Now().Add(patience); !hit(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// signal sends a signal as soon as there is somebody to get it.
func signal(s unix.Signal, find func() []int) (bool, error) {
	return await(func() bool {
		hit := false
		for _, pid := range find() {
			hit = unix.Kill(pid, s) == nil || hit
		}
		return hit
	}), nil
}

// stop stops processes for a while.
func stop(d time.Duration, find func() []int) (bool, error) {
	var stopped []int
	hit, err := signal(unix.SIGSTOP, func() []int { stopped = find(); return stopped })
	time.Sleep(d)
	for _, pid := range stopped {
		_ = unix.Kill(pid, unix.SIGCONT) // it may have been killed
	}
	return hit, err
}

// starve leaves processes no descriptors beyond those that they have, for a while.
func starve(d time.Duration, find func() []int) (bool, error) {
	var pids []int
	await(func() bool { pids = find(); return len(pids) > 0 })
	before := map[int]unix.Rlimit{}
	for _, pid := range pids {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		var limit unix.Rlimit
		if err != nil || unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) != nil {
			continue // it has ended
		}
		low := unix.Rlimit{Cur: uint64(len(fds)), Max: limit.Max}
		if unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil) == nil {
			before[pid] = limit
		}
	}
	time.Sleep(d)
	for pid, limit := range before {
		_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil) // it may have ended
	}
	return len(before) > 0, nil
}

// cut leaves half of a file that there is.
func cut(path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.Truncate(path, info.Size()/2) == nil
}

// overwrite fills a file that there is with what nobody can read.
func overwrite(path string) bool {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return false
	}
	_, err = file.WriteString("\x00\xff{]garbage")
	return errors.Join(err, file.Close()) == nil
}

// immutable is FS_IMMUTABLE_FL of ioctl_iflags(2).
const immutable = 0x10

// seal lets nobody make, remove or rename anything in directories for a while. It tells
// whether there was one.
func seal(d time.Duration, find func() ([]string, error)) (sealed bool, err error) {
	var errs []error
	await(func() bool {
		dirs, err := find()
		errs = append(errs, err)
		for _, dir := range dirs {
			file, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
			if err != nil {
				continue // it is gone
			}
			defer file.Close()
			fd := int(file.Fd())
			if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, immutable); err != nil {
				errs = append(errs, fmt.Errorf("seal %q: %w", dir, err))
				continue
			}
			sealed = true
			defer func() {
				if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0); err != nil {
					errs = append(errs, fmt.Errorf("unseal %q: %w", dir, err))
				}
			}()
		}
		if sealed {
			time.Sleep(d)
		}
		return sealed
	})
	return sealed, errors.Join(errs...)
}

// fill leaves no room in isolate's directory for a while.
func fill(d time.Duration) (bool, error) {
	path := filepath.Join(runDir, ".full")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, nil // another fault was first
	}
	defer file.Close()
	var size int64
	for step := int64(runSize); step >= 4096; step /= 2 {
		for unix.Fallocate(int(file.Fd()), 0, size, step) == nil {
			size += step
		}
	}
	time.Sleep(d)
	if err := os.Remove(path); err != nil {
		return true, fmt.Errorf("make room: %w", err)
	}
	return true, nil
}

// readOnly lets nobody write to isolate's directory for a while. That is not possible
// while somebody has a file open for writing, as shims of running containers have: then
// what is there can be written, and nothing be made or removed.
func readOnly(d time.Duration) (bool, error) {
	if err := unix.Mount("", runDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); errors.Is(err, unix.EBUSY) {
		return seal(d, func() ([]string, error) {
			dirs := []string{runDir, filepath.Join(runDir, ".ids", "adopted")}
			for _, pattern := range []string{"*", "[^.]*/*"} { // of a namespace, of a container
				found, err := filepath.Glob(filepath.Join(runDir, pattern))
				if err != nil {
					return nil, err
				}
				dirs = append(dirs, found...)
			}
			return dirs, nil
		})
	} else if err != nil {
		return false, fmt.Errorf("make %q read-only: %w", runDir, err)
	}
	time.Sleep(d)
	if err := unix.Mount("", runDir, "", unix.MS_REMOUNT, ""); err != nil {
		return true, fmt.Errorf("make %q writable: %w", runDir, err)
	}
	return true, nil
}

// killContainerd leaves it to tend to start another one.
func (m *machine) killContainerd() error {
	m.daemons.Lock()
	defer m.daemons.Unlock()
	return m.node.Kill()
}

// tend starts containerd again whenever it was killed, until the context ends. Then it
// runs.
func (m *machine) tend(ctx context.Context) error {
	for {
		if err := m.revive(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return m.revive(context.WithoutCancel(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (m *machine) revive(ctx context.Context) error {
	m.daemons.Lock()
	defer m.daemons.Unlock()
	if unix.Kill(m.node.Pid(), 0) == nil {
		return nil
	}
	if err := m.node.Kill(); err != nil { // waits for its end
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err := m.node.Start(ctx)
	for range 2 {
		if err != nil { // killed meanwhile
			err = m.node.Start(ctx)
		}
	}
	return errors.Join(err, m.namePid())
}

// namePid tells the wrapped runtimes who containerd is.
func (m *machine) namePid() error {
	return os.WriteFile(filepath.Join(m.faults, "containerd"), fmt.Append(nil, m.node.Pid()), 0o644)
}

// restartLxcfs kills it, and starts another one after a while.
func (m *machine) restartLxcfs(ctx context.Context, d time.Duration) error {
	m.files.Lock()
	defer m.files.Unlock()
	if err := m.lxcfs.Kill(); err != nil {
		return err
	}
	time.Sleep(d / 3)
	if err := m.lxcfs.Close(); err != nil {
		return err
	}
	var err error
	m.lxcfs, err = rig.StartLxcfs(ctx, lxcfsPeer, "")
	return err
}

// stopLxcfs lets it hang for a while.
func (m *machine) stopLxcfs(d time.Duration) (bool, error) {
	m.files.Lock()
	defer m.files.Unlock()
	if err := m.lxcfs.Stop(); err != nil {
		return false, err
	}
	time.Sleep(d)
	return true, m.lxcfs.Cont()
}
