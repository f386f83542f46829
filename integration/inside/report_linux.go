// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reported is what "report" prints.
type reported struct {
	UID, GID   int
	Groups     []int
	UIDMap     string // fields separated by single spaces
	GIDMap     string
	Namespaces map[string]string // name to the link's text
	Status     map[string]string // fields of /proc/self/status
	Files      map[string]string // "mode uid:gid" in octal and decimal, or an error
	Sysctls    map[string]string // of those that were asked for as "sysctl:name"
}

// report tells who this process is and who owns the given paths.
func report(paths []string) (any, error) {
	r := reported{
		UID: os.Getuid(), GID: os.Getgid(),
		Namespaces: map[string]string{}, Status: map[string]string{}, Files: map[string]string{}, Sysctls: map[string]string{},
	}
	var err error
	if r.Groups, err = os.Getgroups(); err != nil {
		return nil, fmt.Errorf("own groups: %w", err)
	}
	if r.UIDMap, err = fields("/proc/self/uid_map"); err != nil {
		return nil, err
	}
	if r.GIDMap, err = fields("/proc/self/gid_map"); err != nil {
		return nil, err
	}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		if r.Namespaces[name], err = os.Readlink("/proc/self/ns/" + name); err != nil {
			return nil, err
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		r.Status[key] = strings.TrimSpace(value)
	}
	for _, path := range paths {
		if name, ok := strings.CutPrefix(path, "sysctl:"); ok {
			if r.Sysctls[name], err = fields("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err != nil {
				return nil, err
			}
			continue
		}
		r.Files[path] = owner(path)
	}
	return r, nil
}

func owner(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
}

func fields(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.Join(strings.Fields(string(text)), " "), err
}

// connect returns what is read from a unix socket.
func connect(args []string) (any, error) {
	if len(args) != 1 {
		return nil, errors.New("usage: inside connect SOCKET")
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	connection, err := dialer.DialContext(context.Background(), "unix", args[0])
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	text, err := io.ReadAll(connection)
	return string(text), err
}
