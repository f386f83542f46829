// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/record"
)

// A runtime that is killed between its fork and the writing of its state leaves a
// process that it does not know.
func TestProcessesUnknownToTheRuntimeEnd(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	id := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	dirs, err := cgroupfs.Dirs("/isolate-" + id)
	if err != nil || len(dirs) == 0 {
		t.Fatal("no hierarchy is mounted", err)
	}
	dir := dirs[len(dirs)-1]
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &record.Record{
		Version: record.Version, Namespace: "isolate-test", ID: id, Bundle: filepath.Clean(t.TempDir()),
		Mapping: idmap.Contiguous(1879048192, 65536), Cgroups: []string{dir},
	}
	cmd := exec.Command("sleep", "1000")
	ids := []syscall.SysProcIDMap{{HostID: int(r.Mapping.UIDs[0].Host), Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()          //nolint:errcheck // killed
	t.Cleanup(func() { cmd.Process.Kill(); <-ended }) //nolint:errcheck // ended, perhaps
	if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if alive, left := Undo(t.Context(), r, 10*time.Second); alive != nil || left != nil {
		t.Error(alive, left)
	}
	if ended, err := p.Ended(10 * time.Second); !ended || err != nil {
		t.Error("a process of the container lives", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("its group is left")
	}
}
