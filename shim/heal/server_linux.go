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
)

// server is a process that may be an lxcfs.
type server struct {
	*proc.Process

	start time.Duration // since boot
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
		if s, serves, ok := openServer(pid, roots); ok && serves {
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
		if s, serves, ok := openServer(pid, roots); ok && serves {
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
// namespace, and tells whether its command line names one of roots.
func openServer(pid int, roots []string) (s server, serves, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil || string(bytes.TrimSpace(comm)) != "lxcfs" {
		return server{}, false, false
	}
	ours, err := ns.Own("user")
	if err != nil {
		return server{}, false, false
	}
	if theirs, err := ns.At(filepath.Join(dir, "ns/user")); err != nil || theirs != ours {
		return server{}, false, false
	}
	if s.Process, err = proc.Open(pid); err != nil {
		return server{}, false, false
	}
	s.start = time.Duration(s.ID().Start) * proc.Tick //nolint:gosec // not for ages
	line, err := s.Read("cmdline")
	// What was read belongs to the process if it lives until now.
	if err != nil {
		s.Close()
		return server{}, false, false
	}
	args := strings.Split(string(line), "\x00")
	serves = slices.ContainsFunc(roots, func(root string) bool {
		return slices.ContainsFunc(args, func(arg string) bool { return filepath.Clean(arg) == root })
	})
	return s, serves, true
}
