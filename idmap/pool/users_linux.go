// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// scanPatience bounds a look at all processes, which takes some 25 us for each.
const scanPatience = 5 * time.Second

// user is a process that has ids.
type user struct {
	pid  int
	name string
}

func (u user) String() string {
	return fmt.Sprintf("process %d (%q) has ids of it", u.pid, u.name)
}

// users finds which host ids processes have.
type users struct {
	own  []byte // this process's uid_map
	maps map[string]bool
	ids  map[idmap.Span]user
	buf  []byte
}

// findUsers returns the host ids that processes have. It is an error if a file of a
// living process cannot be read.
func findUsers() (map[idmap.Span]user, error) {
	own, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil, fmt.Errorf("find the processes that have host ids: %w", err)
	}
	u := &users{own: own, maps: map[string]bool{}, ids: map[idmap.Span]user{}, buf: make([]byte, 4096)}
	if err := proc.Each(scanPatience, u.look); err != nil {
		return nil, fmt.Errorf("find the processes that have host ids: %w", err)
	}
	return u.ids, nil
}

// look notes the ids of a process: the ids that it has, and the ids that it could take
// since its user namespace maps them. All threads of a process share these. A process
// of our own user namespace could take every id, so only the ids that it has count;
// if its first thread has ended, the ids of its other threads.
func (u *users) look(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	status, err := u.status(dir + "status")
	if err != nil {
		return vanished(err)
	}
	firstEnded := status.State == 'Z' || status.State == 'X'
	if firstEnded {
		p, err := proc.Open(pid)
		if errors.Is(err, proc.ErrEnded) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.Close(); err != nil {
			return err
		}
	}
	uids, err := u.read(dir + "uid_map")
	if err != nil {
		return vanished(err)
	}
	who := user{pid: pid, name: status.Name}
	u.note(who, status)
	if !bytes.Equal(uids, u.own) {
		return u.noteMaps(who, dir, string(uids))
	}
	if firstEnded {
		return u.threads(who, dir)
	}
	return nil
}

// noteMaps notes the ids that a user namespace maps. A namespace that maps the host's
// root belongs to the host, and its other ids do not count: systemd makes namespaces
// that map every id (PrivateUsers=full).
func (u *users) noteMaps(who user, dir, uids string) error {
	content, err := u.read(dir + "gid_map")
	if err != nil {
		return vanished(err)
	}
	gids := string(content)
	both := uids + "\n" + gids
	if u.maps[both] {
		return nil
	}
	u.maps[both] = true
	for _, text := range []string{uids, gids} {
		ranges, err := idmap.ParseProcMap(text)
		if err != nil {
			return fmt.Errorf("process %d: %w", who.pid, err)
		}
		if slices.ContainsFunc(ranges, func(r idmap.Range) bool { return r.Host == 0 }) {
			continue
		}
		for _, r := range ranges {
			u.ids[r.Span()] = who
		}
	}
	return nil
}

func (u *users) threads(who user, dir string) error {
	tids, err := os.ReadDir(dir + "task")
	if err != nil {
		return vanished(err)
	}
	for _, tid := range tids {
		status, err := u.status(dir + "task/" + tid.Name() + "/status")
		if err := vanished(err); err != nil {
			return err
		}
		u.note(who, status)
	}
	return nil
}

func (u *users) note(who user, s proc.Status) {
	for _, ids := range [][]uint32{s.UIDs, s.GIDs} {
		for _, id := range ids {
			u.ids[idmap.Span{First: idmap.HostID(id), Size: 1}] = who
		}
	}
}

func (u *users) status(path string) (proc.Status, error) {
	content, err := u.read(path)
	if err != nil {
		return proc.Status{}, err
	}
	s, err := proc.ParseStatus(content)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// read reads a file of /proc. What it returns is valid until the next call.
func (u *users) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for {
		got, err := unix.Read(fd, u.buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		case got == 0:
			return u.buf[:n], nil
		}
		if n += got; n == len(u.buf) {
			u.buf = append(u.buf, make([]byte, len(u.buf))...)
		}
	}
}

// vanished returns nil for an error that says that the process has ended. Opening the
// uid_map of an ended process fails with EINVAL (fs/proc/base.c: proc_id_map_open).
func vanished(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
