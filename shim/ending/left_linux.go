// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// maxThreads bounds how many threads an error names, since a container can have very
// many.
const maxThreads = 5

// left is an error that names the threads that have not ended, and where in the kernel
// they wait.
func (e *end) left() error {
	pids := e.others
	if e.first != nil {
		pids = append([]int{e.first.PID()}, pids...)
	}
	var waiting []string
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
		tids, err := os.ReadDir(dir)
		if err != nil {
			continue // ended
		}
		for _, tid := range tids {
			if s := thread(filepath.Join(dir, tid.Name())); s != "" && len(waiting) < maxThreads {
				waiting = append(waiting, "thread "+tid.Name()+" of process "+strconv.Itoa(pid)+" "+s)
			}
		}
	}
	if len(waiting) == 0 {
		return errors.New("its processes are just ending")
	}
	return fmt.Errorf("SIGKILL does not end %s", strings.Join(waiting, ", "))
}

// thread describes a thread that has not ended, "" for one that has. The container can
// give the thread any name.
func thread(dir string) string {
	content, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return ""
	}
	stat, err := proc.ParseStat(content)
	if err != nil || stat.State == 'Z' || stat.State == 'X' {
		return ""
	}
	name, nameErr := os.ReadFile(filepath.Join(dir, "comm"))
	wchan, wchanErr := os.ReadFile(filepath.Join(dir, "wchan"))
	if nameErr != nil || wchanErr != nil {
		return ""
	}
	return fmt.Sprintf("(%q, state %c, in %s)", strings.TrimSpace(string(name)), stat.State, wchan)
}
