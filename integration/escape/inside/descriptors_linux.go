// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fds lists the descriptors that this process was started with, and where its
// directories lead.
func fds(facts) {
	entries, err := os.ReadDir("/proc/self/fd")
	must(err)
	for _, e := range entries {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || isOwn(link) {
			continue
		}
		say("fd:"+e.Name(), "open", link)
		number, err := strconv.Atoi(e.Name())
		must(err)
		if up, err := unix.Openat(number, "..", unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(up)
			say("fd-directory:"+e.Name(), allowed, link)
		}
	}
	cwd, err := os.Readlink("/proc/self/cwd")
	say("cwd", cwd, describe(err))
	root, err := os.Stat("/")
	must(err)
	above, err := os.Stat("/../../../../../../../../../..")
	must(err)
	if !os.SameFile(root, above) {
		say("above", allowed, "")
	}
}

// isOwn tells whether a descriptor is of the Go runtime, or the listing's.
func isOwn(link string) bool {
	return strings.HasPrefix(link, "anon_inode:[event") || strings.HasPrefix(link, "/proc/") && strings.HasSuffix(link, "/fd")
}

// watch looks at every other process as soon as it appears, for what a runtime
// that enters the container might carry along (CVE-2019-5736, CVE-2024-21626),
// until the container is stopped.
func watch() {
	self, err := os.Stat("/proc/self/exe")
	must(err)
	report("watching", nil)
	seen := map[string]bool{}
	for {
		entries, err := os.ReadDir("/proc")
		must(err)
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 {
				look(pid, self, seen)
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func look(pid int, self os.FileInfo, seen map[string]bool) {
	dir := fmt.Sprintf("/proc/%d", pid)
	found := func(what, detail string) {
		if !seen[what+detail] {
			seen[what+detail] = true
			say("watch:"+what, allowed, detail)
		}
	}
	exe, err := os.Stat(dir + "/exe")
	if err != nil {
		// A process that may not be looked at.
		if !errors.Is(err, os.ErrNotExist) && !seen["closed"] {
			seen["closed"] = true
			say("watch-closed", describe(err), "")
		}
		return
	}
	if os.SameFile(exe, self) {
		return
	}
	link, _ := os.Readlink(dir + "/exe")
	if open(dir+"/exe", unix.O_WRONLY) == nil {
		found("exe", link)
	}
	for _, name := range []string{"cwd", "root"} {
		if inside, err := os.Stat(dir + "/" + name + "/escape-nodes"); err != nil || !inside.IsDir() {
			to, _ := os.Readlink(dir + "/" + name)
			found(name, link+" "+to)
		}
	}
	entries, _ := os.ReadDir(dir + "/fd")
	for _, e := range entries {
		path := filepath.Join(dir, "fd", e.Name())
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			to, _ := os.Readlink(path)
			found("fd", link+" "+to)
		}
	}
}
