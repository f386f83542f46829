// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/isolate-shim/isolate/integration/rig"
)

// look takes an inventory of the rig.
func (m *machine) look(ctx context.Context) (Inventory, error) {
	found := Inventory{}
	l, err := rig.Snapshot()
	if err != nil {
		return nil, err
	}
	found.Merge(mountKind, l.Mounts)
	found.Merge(cgroupKind, l.Cgroups)
	for line, n := range l.Processes {
		if !strings.Contains(line, "/lxcfs -f") { // each has a run file of its own
			found[Thing{processKind, line}] += n
		}
	}
	for path, n := range l.Files {
		found[Thing{fileKind(path), path}] += n
	}
	// A snapshot does not look into mounts.
	for _, dir := range []string{runDir, "/var/lib/isolate"} {
		if err := listFiles(dir, found); err != nil {
			return nil, err
		}
	}
	return found, errors.Join(spaces(found), m.ranges(ctx, found))
}

// listFiles adds what is below a directory of isolate's, but for what is made once and
// kept.
func listFiles(dir string, found Inventory) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(path, runDir+"/.ids"), strings.HasPrefix(path, runDir+"/.runtime"):
			return fs.SkipDir
		case entry.IsDir() && (path == dir || path == "/var/lib/isolate/chown" || filepath.Dir(path) == runDir):
			return nil
		}
		if kind := fileKind(path); kind == movedKind { // their names tell nothing
			found[Thing{kind, "*" + filepath.Ext(path)}]++
		} else {
			found[Thing{kind, path}]++
		}
		if mounted, err := mountinfo.Mounted(path); entry.IsDir() && (err != nil || mounted) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	return nil
}

// spaces adds the namespaces that processes are in, and the mounts of those that are
// not the rig's own.
func spaces(found Inventory) error {
	processes, err := processes()
	if err != nil {
		return err
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("look at namespaces: %w", err)
	}
	seen := map[string]bool{}
	for _, p := range processes {
		for _, kind := range []string{"mnt", "net", "user", "pid", "ipc", "uts"} {
			name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind))
			if err != nil || seen[name] {
				continue // it has ended
			}
			seen[name] = true
			who := filepath.Base(p.args[0])
			found[Thing{spaceKind, kind + " of " + who}]++
			if kind != "mnt" || name == own {
				continue
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.pid))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(mounts)) {
				if fields := strings.Fields(line); len(fields) > 4 {
					found[Thing{elsewhereKind, fields[4] + " of " + who}]++
				}
			}
		}
	}
	return nil
}

// ranges adds the ranges of ids that are not free.
func (m *machine) ranges(ctx context.Context, found Inventory) error {
	r := rig.Exec(ctx, m.isolatectl, "ids", "--json")
	if err := r.Err(); err != nil {
		return err
	}
	var report struct {
		Ranges []struct{ Namespace, ID, State string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		return fmt.Errorf("read %q: %w", r.Stdout, err)
	}
	for _, x := range report.Ranges {
		found[Thing{rangeKind, x.State + " " + x.Namespace + "/" + x.ID}]++
	}
	return nil
}

// process is one of the rig's.
type process struct {
	pid  int
	args []string
}

// processes lists those that have a command line.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		list = append(list, process{pid, strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")})
	}
	return list, nil
}

// role is what a process is to a life.
type role int

const (
	shimRole role = iota
	runtimeRole
	clientRole
)

// of finds the processes that serve a life, by their arguments.
func of(l Life, want role) []int {
	list, err := processes()
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range list {
		if !slices.ContainsFunc(p.args, func(arg string) bool { return strings.HasPrefix(arg, l.Mark()) }) {
			continue
		}
		is := runtimeRole
		switch base := filepath.Base(p.args[0]); {
		case base == "ctr":
			is = clientRole
		case strings.HasPrefix(base, "containerd-shim-"):
			if slices.Contains(p.args, "start") || slices.Contains(p.args, "delete") {
				continue
			}
			is = shimRole
		}
		if is == want {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// firstOf finds the first process of a container, by its cgroups: the program has no
// arguments of its own.
func firstOf(id string) []int {
	list, err := processes()
	if err != nil {
		return nil
	}
	for _, p := range list {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
		if err == nil && p.args[0] == "sleep" && strings.Contains(string(groups), "/"+id) {
			return []int{p.pid}
		}
	}
	return nil
}

// use is what a process uses, in words.
func use(name string, pid int) string {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return name + ": gone"
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	text := fmt.Sprintf("%s: %s", name, plural(len(fds), fdKind))
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "RssAnon:") || strings.HasPrefix(line, "Threads:") {
			text += ", " + strings.Join(strings.Fields(line), " ")
		}
	}
	return text
}
