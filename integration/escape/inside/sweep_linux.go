// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sweep tries to change every file of /proc and /sys, and of fresh instances
// that nothing covers. What it could change stays changed: the test looks at the
// host, and the container goes away.
func sweep(facts) {
	must(os.MkdirAll(scratch+"/proc", 0o700))
	must(os.MkdirAll(scratch+"/sys", 0o700))
	try("fresh:proc", func() error { return unix.Mount("proc", scratch+"/proc", "proc", 0, "") })
	try("fresh:sys", func() error { return unix.Mount("sysfs", scratch+"/sys", "sysfs", 0, "") })
	tried := 0
	for label, root := range map[string]string{"": "/", "fresh:": scratch} {
		for _, top := range []string{"/proc", "/sys"} {
			tried += tree(label, root, top)
		}
	}
	say("sweep/tried", strconv.Itoa(tried), "")
}

func tree(label, root, top string) int {
	tried := 0
	err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if path == "/sys/fs/cgroup" || isProcess(root, path) {
				return fs.SkipDir // group "limits"; processes of the container
			}
			return nil // a directory that is closed has nothing to write to
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		tried++
		change(label, "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), path)
		return nil
	})
	must(err)
	return tried
}

// isProcess tells whether a path is /proc/<pid>.
func isProcess(root, path string) bool {
	if filepath.Dir(path) != filepath.Join(root, "/proc") {
		return false
	}
	_, err := strconv.Atoi(filepath.Base(path))
	return err == nil
}

// change writes a file's own value with a little change, and reports it if it
// could be opened for that at all. What cannot be read is not written: it is
// enough that it opens.
func change(label, name, path string) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if isNull(fd) {
		return // over it, as a runtime masks files
	}
	var buffer [4096]byte
	n, err := read(path, buffer[:])
	if err != nil || slices.Contains(oneWay, name) {
		say("open:"+label+name, allowed, describe(err))
		return
	}
	value := strings.TrimSpace(string(buffer[:n]))
	err = errors.New("no value to try")
	var tried string
	for _, tried = range others(value) {
		_, _ = unix.Seek(fd, 0, 0) // some files have no position
		if _, err = unix.Write(fd, []byte(tried)); err == nil {
			break
		}
	}
	say("write:"+label+name, describe(err), value+" -> "+tried)
}

// isNull tells whether a descriptor is of /dev/null.
func isNull(fd int) bool {
	var st unix.Stat_t
	must(unix.Fstat(fd, &st))
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// oneWay are switches that cannot be put back.
var oneWay = []string{"/proc/sys/net/netfilter/nf_hooks_lwtunnel"}

func read(path string, buffer []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Read(fd, buffer)
}

// others returns values beside one.
func others(value string) []string {
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return []string{"escape", "1"}
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return []string{value + "x", "escape"}
	}
	var out []string
	for _, m := range []int64{n + 1, n - 1} {
		out = append(out, strings.Join(append([]string{strconv.FormatInt(m, 10)}, fields[1:]...), "\t"))
	}
	return out
}
