// SPDX-License-Identifier: Apache-2.0

package exhausted

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTasks(t *testing.T) {
	t.Parallel()
	const roomy = "0.5 0.4 0.3 2/900 12345\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{name: "nothing is known"},
		{name: "room", files: map[string]string{
			"proc/self/cgroup": "0::/system.slice/containerd.service\n", "proc/loadavg": roomy,
			"sys/fs/cgroup/system.slice/containerd.service/pids.current": "100\n", "sys/fs/cgroup/system.slice/containerd.service/pids.max": "max\n",
			"sys/fs/cgroup/system.slice/pids.current": "100\n", "sys/fs/cgroup/system.slice/pids.max": "4915\n",
			"proc/sys/kernel/threads-max": "95000\n", "proc/sys/kernel/pid_max": "4194304\n",
		}},
		{name: "group above", files: map[string]string{
			"proc/self/cgroup":                        "0::/system.slice/containerd.service\n",
			"sys/fs/cgroup/system.slice/pids.current": "4900\n", "sys/fs/cgroup/system.slice/pids.max": "4915\n",
		}, want: "pids.max of cgroup /sys/fs/cgroup/system.slice, which has 4900 of 4915 tasks"},
		{name: "version 1", files: map[string]string{
			"proc/self/cgroup":              "9:cpu,pids:/c\n3:memory:/other\n0::/\n",
			"sys/fs/cgroup/pids/c/pids.max": "50\n", "sys/fs/cgroup/pids/c/pids.current": "50\n",
		}, want: "pids.max of cgroup /sys/fs/cgroup/pids/c, which has 50 of 50 tasks"},
		{name: "machine", files: map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/loadavg": roomy, "proc/sys/kernel/threads-max": "95000\n", "proc/sys/kernel/pid_max": "910\n",
		}, want: "kernel.pid_max (sysctl) of 910"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for name, text := range c.files {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.ReplaceAll(tasks(root), root, ""); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
