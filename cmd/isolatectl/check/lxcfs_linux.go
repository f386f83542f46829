// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// served checks that lxcfs answers, and what it serves.
func served(ctx context.Context, r *Report, cfg config.Config, d distro) {
	probe := lxcfs.StartProbe(ctx, cfg.LXCFS)
	defer probe.Close()
	result, err := probe.Result()
	l := lxcfsHost{
		Mode: cfg.LXCFS.Mode, Err: err, Root: result.Root, Skipped: result.Skipped,
		Service: systemdRuns() && hasUnit("lxcfs.service"), Distro: d,
	}
	for _, f := range result.Files {
		l.Files = append(l.Files, filepath.Base(f.Name))
	}
	l.Program, _ = exec.LookPath("lxcfs") // "" if it is not there
	for _, p := range host.Find("/proc", "lxcfs") {
		l.PID, l.Args, l.Stopped = p.PID, p.Args, p.Stopped
		break
	}
	r.add(l.judge())
}

// hasUnit tells whether a unit is in one of the directories of systemd.unit(5) that
// administrators and packages use.
func hasUnit(name string) bool {
	return slices.ContainsFunc([]string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"}, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "systemd/system", name))
		return err == nil
	})
}
