// SPDX-License-Identifier: Apache-2.0

package exhausted

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spare is how many tasks less than a limit count as reached: those that have failed are
// gone again. A runtime has some ten threads.
const spare = 32

// tasks names the limits of processes and threads that are reached: of this process's
// cgroups, and of the machine. root is the root directory, or a test's.
func tasks(root string) string {
	var reached []string
	for _, dir := range groups(root) {
		for ; len(dir) > len(filepath.Join(root, "sys/fs/cgroup")); dir = filepath.Dir(dir) {
			if n, most, ok := near(filepath.Join(dir, "pids.current"), filepath.Join(dir, "pids.max")); ok {
				reached = append(reached, fmt.Sprintf("pids.max of cgroup %s, which has %d of %d tasks", dir, n, most))
			}
		}
	}
	// The fourth field is "running/all" (proc_loadavg(5)).
	var all int
	if fields := strings.Fields(content(filepath.Join(root, "proc/loadavg"))); len(fields) > 3 {
		_, text, _ := strings.Cut(fields[3], "/")
		all, _ = strconv.Atoi(text)
	}
	for _, name := range []string{"threads-max", "pid_max"} {
		most, err := strconv.Atoi(content(filepath.Join(root, "proc/sys/kernel", name)))
		if err == nil && all+spare >= most {
			reached = append(reached, fmt.Sprintf("kernel.%s (sysctl) of %d", name, most))
		}
	}
	return strings.Join(reached, ", ")
}

// groups are the directories of this process's groups that may count tasks.
func groups(root string) []string {
	var dirs []string
	for line := range strings.Lines(content(filepath.Join(root, "proc/self/cgroup")) + "\n") {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[1] == "":
			dirs = append(dirs, filepath.Join(root, "sys/fs/cgroup", fields[2]))
		case strings.Contains(","+fields[1]+",", ",pids,"):
			dirs = append(dirs, filepath.Join(root, "sys/fs/cgroup/pids", fields[2]))
		}
	}
	return dirs
}

// near tells whether a count is near its limit; there may be none ("max").
func near(count, limit string) (n, most int, ok bool) {
	n, err := strconv.Atoi(content(count))
	if err != nil {
		return 0, 0, false
	}
	most, err = strconv.Atoi(content(limit))
	return n, most, err == nil && n+spare >= most
}

// content is what a file has, "" if it cannot be read: then it shows no limit.
func content(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}
