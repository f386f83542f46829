// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unsteady are settings that change by themselves, or by what else runs on the
// machine.
var unsteady = regexp.MustCompile(`^/proc/sys/(kernel/(ns_last_pid|random/.*)|fs/(inode|dentry|file|quota)[-/].*)$` +
	`|^/sys/devices/virtual/(bdi|net|block/(loop|zram)\d+)/` + // come and go with mounts, links and files
	`|^/sys/(kernel/slab|fs/ext4)/|/(power|holders|slaves)/|^/sys/kernel/(debug/)?(lru_gen|tracing/buffer|block/)`)

// settings returns all that can be set in trees of files, with its value.
func settings(t *testing.T, unsteady *regexp.Regexp, roots ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	buffer := make([]byte, 4096)
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile
			}
			if path == "/sys/fs/cgroup" {
				return fs.SkipDir
			}
			info, err := entry.Info()
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o222 == 0 || unsteady.MatchString(path) {
				return nil
			}
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil // not for reading
			}
			defer unix.Close(fd)
			if n, err := unix.Read(fd, buffer); err == nil {
				out[path] = string(buffer[:n])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d settings in %q", len(out), roots)
	}
	return out
}

func hostSettings(t *testing.T) map[string]string {
	t.Helper()
	return settings(t, unsteady, "/proc/sys", "/proc/irq", "/proc/mtrr", "/sys")
}

// same fails the test for each setting that has changed, and puts it back.
func same(t *testing.T, before, after map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(before)) {
		now, ok := after[path]
		if !ok || now == before[path] {
			continue
		}
		t.Errorf("on the host, %s was %q and is %q", path, before[path], now)
		if err := os.WriteFile(path, []byte(before[path]), 0); err != nil {
			t.Error(err)
		}
	}
}

// unsteadyGroup are what cgroups count.
var unsteadyGroup = regexp.MustCompile(`/(tasks|cgroup\.(procs|threads|event_control)|memory\.(kmem\.|memsw\.)?(\w+\.)?(max_usage_in_bytes|failcnt)|cpuacct\.usage.*` +
	`|memory\.(swap\.)?peak|(cpu|io|memory|irq)\.pressure)$`)

// unified reports whether the machine has the one hierarchy of cgroup version 2.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// groupSettings returns the limits of a process's cgroups and of those above.
func groupSettings(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		name := strings.TrimPrefix(fields[1], "name=")
		if name == "" && !unified() {
			continue // cgroup2 beside v1, without controllers
		}
		for path := fields[2]; ; path = filepath.Dir(path) {
			files, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", name, path, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o222 != 0 && !unsteadyGroup.MatchString(file) {
					if value, err := os.ReadFile(file); err == nil {
						out[file] = string(value)
					}
				}
			}
			if path == "/" {
				break
			}
		}
	}
	if len(out) < 20 {
		t.Fatalf("only %d settings of cgroups of %d: %s", len(out), pid, text)
	}
	return out
}

// hostMounts returns the mount table of every mount namespace in which a process
// of the host runs, by the namespace.
func hostMounts(t *testing.T) map[string]string {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if in, err := os.Readlink(p + "/ns/pid"); err != nil || in != own {
			continue // of a container, or gone
		}
		in, err := os.Readlink(p + "/ns/mnt")
		if err != nil || out[in] != "" {
			continue
		}
		if text, err := os.ReadFile(p + "/mountinfo"); err == nil {
			out[in] = string(text)
		}
	}
	if len(out) == 0 {
		t.Fatal("no process found")
	}
	return out
}
