// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
)

// Snapshot counts what is there now.
func Snapshot() (Leftovers, error) {
	var l Leftovers
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return l, fmt.Errorf("read mounts: %w", err)
	}
	l.Mounts = map[string]int{}
	points := map[string]bool{}
	for _, m := range mounts {
		l.Mounts[m.FSType+" "+m.Source+" on "+m.Mountpoint]++
		points[m.Mountpoint] = true
	}
	var errs [3]error
	l.Processes, errs[0] = processes()
	l.Cgroups, errs[1] = cgroups()
	l.Files, errs[2] = files(points)
	return l, errors.Join(errs[:]...)
}

// MustSnapshot is Snapshot for tests.
func MustSnapshot(t interface {
	Helper()
	Fatal(...any)
},
) Leftovers {
	t.Helper()
	l, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func processes() (map[string]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	found := map[string]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		// A zombie has no command line, nor has a process that is gone.
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		found[string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte{' '}))]++
	}
	return found, nil
}

// cgroups lists all groups but those that a runtime makes for a containerd
// namespace and never removes. What is in them counts.
func cgroups() (map[string]int, error) {
	list, err := hierarchies()
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for _, h := range list {
		groups, err := groupsBelow(h.path)
		if err != nil {
			return nil, err
		}
		for _, group := range groups {
			if !namespaces[group] {
				found[filepath.Join(h.path, group)]++
			}
		}
	}
	return found, nil
}

// namespaces are those that tests use.
var namespaces = map[string]bool{"default": true, "k8s.io": true, "moby": true, "test": true}

// watched are directories in which nothing may stay behind; each containerd adds
// its own.
var watched struct {
	mu   sync.Mutex
	dirs []string
}

// watch adds directories to those of which snapshots are taken.
func watch(dirs ...string) {
	watched.mu.Lock()
	defer watched.mu.Unlock()
	watched.dirs = append(watched.dirs, dirs...)
}

func watchedDirs() []string {
	watched.mu.Lock()
	defer watched.mu.Unlock()
	return append([]string{"/run", filepath.Join(Dir(), "tmp")}, watched.dirs...)
}

// files lists files and directories. It does not look into mounts, which are
// counted by themselves, and of which some do not answer.
func files(mountpoints map[string]bool) (map[string]int, error) {
	found := map[string]int{}
	for _, top := range watchedDirs() {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile, or not yet there
			}
			if err != nil {
				return err
			}
			if path != top && mountpoints[path] {
				found[path]++
				return fs.SkipDir
			}
			if path != top && !madeOnce(path, entry) {
				found[path]++
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list files: %w", err)
		}
	}
	return found, nil
}

// madeOnce tells whether a path is a directory that some program makes when it is
// first used, and keeps. What is in it counts, but for the files of id ranges:
// they stay, and whoever wants a range looks whether its last owner is gone.
func madeOnce(path string, entry fs.DirEntry) bool {
	if strings.HasPrefix(path, "/run/isolate/.ids/") {
		return true
	}
	// crun keeps compiled seccomp profiles, and forgets old ones.
	if strings.HasPrefix(path, "/run/") && strings.Contains(path+"/", "/.cache/") {
		return true
	}
	// What an OCI runtime has said of itself is asked once.
	if ok, err := filepath.Match("/run/isolate/.runtime/*.json", path); ok && err == nil {
		return true
	}
	if !entry.IsDir() {
		return false
	}
	switch path {
	case "/run/containerd", "/run/containerd/s", "/run/containerd/fifo", "/run/containerd/runc",
		"/run/isolate", "/run/isolate/.ids", "/run/isolate/.notify", "/run/isolate/.runtime", "/run/isolate/.unfinished",
		// lxcfs, and mount(8) for it
		"/run/lxcfs", "/run/lxcfs/controllers", "/run/lxcfs/root", "/run/mount":
		return true
	}
	parent, name := filepath.Split(path)
	return namespaces[name] && (parent == "/run/containerd/runc/" || strings.HasSuffix(parent, "/"+taskDir+"/"))
}

// taskDir holds the bundles, in a containerd's state, and the work directories,
// in its root.
const taskDir = "io.containerd.runtime.v2.task"
