// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pids returns the processes with a command name (/proc/<pid>/comm), as the
// names of their directories. Processes that end meanwhile are left out.
func pids(proc, comm string) []string {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(proc, e.Name(), "comm"))
		if err == nil && strings.TrimSpace(string(name)) == comm {
			found = append(found, e.Name())
		}
	}
	return found
}
