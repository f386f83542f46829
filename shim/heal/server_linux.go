// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// server is a process that may be an lxcfs.
type server struct {
	*proc.Process

	start time.Duration // since boot
	roots []string      // those that its command line names, of those that were searched for
}

// before tells whether it ran already when an lxcfs answered. Start times are those of
// clock ticks.
func (s server) before(seen time.Duration) bool { return s.start <= seen+proc.Tick }

// serves tells whether it may be the lxcfs that files come from: there may be others, with
// other mount points or on top of its own.
func (s server) serves(o lxcfs.Origin) bool {
	return s.before(o.Seen) && (len(s.roots) == 0 || slices.Contains(s.roots, o.Root))
}

// pidfiles are where lxcfs notes its process, unless told otherwise.
var pidfiles = []string{"/run/lxcfs.pid", "/run/lxcfs/lxcfs.pid"}

// findServers returns the processes to watch for an lxcfs that is mounted on one
// of roots. That is the process in lxcfs' usual pid file, if its command line names
// such a root; or else all processes called lxcfs whose command lines do; or else all
// processes called lxcfs.
func findServers(roots []string) []server {
	for _, file := range pidfiles {
		text, err := os.ReadFile(file)
		if err != nil || len(roots) != 1 {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		if s, ok := openServer(pid, roots); ok && len(s.roots) > 0 {
			return []server{s}
		} else if ok {
			s.Close()
		}
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	if err != nil {
		return nil
	}
	var certain, others []server
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, ok := openServer(pid, roots); ok && len(s.roots) > 0 {
			certain = append(certain, s)
		} else if ok {
			others = append(others, s)
		}
	}
	if len(certain) == 0 {
		return others
	}
	for _, s := range others {
		s.Close()
	}
	return certain
}

// openServer opens a process if it is named lxcfs and not in a container's user
// namespace, and finds out which of roots its command line names.
func openServer(pid int, roots []string) (s server, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil || string(bytes.TrimSpace(comm)) != "lxcfs" {
		return server{}, false
	}
	ours, err := ns.Own("user")
	if err != nil {
		return server{}, false
	}
	if theirs, err := ns.At(filepath.Join(dir, "ns/user")); err != nil || theirs != ours {
		return server{}, false
	}
	if s.Process, err = proc.Open(pid); err != nil {
		return server{}, false
	}
	s.start = time.Duration(s.ID().Start) * proc.Tick //nolint:gosec // not for ages
	line, err := s.Read("cmdline")
	// What was read belongs to the process if it lives until now.
	if err != nil {
		s.Close()
		return server{}, false
	}
	args := strings.Split(string(line), "\x00")
	for _, root := range roots {
		if slices.ContainsFunc(args, func(arg string) bool { return filepath.Clean(arg) == root }) {
			s.roots = append(s.roots, root)
		}
	}
	return s, true
}
