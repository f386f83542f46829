// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"
)

// The descriptors on which upstream's manager passes a shim its sockets: the socket of
// the task API, and in debug mode the socket of profiles (manager_linux.go, Start).
const (
	apiSocket   = 3
	debugSocket = 4
)

// removeSockets returns what removes the sockets that this shim serves, when it ends in
// good order. Upstream looks for sockets named after the shim's first container, but
// those of a group of containers are named after the group; and `delete`, which
// containerd runs next, may come while this process still answers. Their paths are
// asked for now: upstream listens on copies of the descriptors, and Go closes the
// descriptors with the first garbage collection after that.
func removeSockets(descriptors ...int) func(context.Context) error {
	paths := socketPaths(descriptors...)
	return func(context.Context) error {
		var errs []error
		for _, path := range paths {
			if err := shim.RemoveSocket("unix://" + path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
}

// socketPaths returns the paths of those descriptors on which this process
// listens.
func socketPaths(descriptors ...int) []string {
	var paths []string
	for _, fd := range descriptors {
		if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening == 0 {
			continue // of another kind, or not there
		}
		name, err := unix.Getsockname(fd)
		if u, ok := name.(*unix.SockaddrUnix); err == nil && ok && filepath.IsAbs(u.Name) {
			paths = append(paths, u.Name)
		}
	}
	return paths
}

// hasClient returns what tells whether a client is connected to one of the sockets that
// this process serves. The kernel gives a connection the name of the socket that it was
// accepted on.
func hasClient(paths ...string) func() bool {
	return func() bool {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil || len(paths) == 0 {
			return true // nothing is known
		}
		return slices.ContainsFunc(fds, func(e os.DirEntry) bool {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				return false
			}
			name, err := unix.Getsockname(fd)
			u, ok := name.(*unix.SockaddrUnix)
			if err != nil || !ok || !slices.Contains(paths, u.Name) {
				return false
			}
			listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			return err == nil && listening == 0
		})
	}
}
