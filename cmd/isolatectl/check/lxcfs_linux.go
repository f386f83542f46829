// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// served checks that lxcfs answers, and what it serves.
func served(ctx context.Context, r *Report, cfg config.Config) {
	const what = "lxcfs"
	probe := lxcfs.StartProbe(ctx, cfg.LXCFS)
	defer probe.Close()
	if cfg.LXCFS.Mode == config.LXCFSOff {
		r.ok(what, "switched off (lxcfs.mode): /proc shows the host's resources in containers")
		return
	}
	s, err := probe.Result()
	if err != nil {
		result, consequence := Degraded, "containers start and /proc shows the host's resources"
		if probe.Required() {
			result, consequence = Failed, "containers are refused (lxcfs.mode = \"require\")"
		}
		r.bad(result, what, "apt-get install lxcfs; run it as lxcfs "+lxcfs.Options+" /var/lib/lxcfs", "%s: %v", consequence, err)
		return
	}
	var names []string
	for _, f := range s.Files {
		names = append(names, filepath.Base(f.Name))
	}
	missing := missingOptions()
	switch {
	case len(s.Skipped) > 0:
		r.bad(Degraded, what, "look into the log of lxcfs", "%s serves %s; unusable: %v", s.Root, strings.Join(names, " "), s.Skipped)
	case len(missing) > 0:
		r.bad(Degraded, what, "start it with "+lxcfs.Options, "%s serves %s, but it runs without %s", s.Root, strings.Join(names, " "), strings.Join(missing, " "))
	default:
		r.ok(what, "%s serves %s", s.Root, strings.Join(names, " "))
	}
}

// missingOptions returns the options that the running lxcfs was not started
// with; none if no lxcfs is seen, as when it runs in another pid namespace.
func missingOptions() []string {
	for _, p := range host.Find("/proc", "lxcfs") {
		return optionsNotIn(p.Args)
	}
	return nil
}

// optionsNotIn returns the ones of [lxcfs.Options] that matter and that a command
// line does not have. Only -l and --enable-cfs change what a container sees.
func optionsNotIn(args []string) []string {
	var missing []string
	for _, o := range [][]string{{"-l", "--enable-loadavg"}, {"--enable-cfs"}} {
		if !slices.ContainsFunc(args, func(a string) bool { return slices.Contains(o, a) }) {
			missing = append(missing, o[0])
		}
	}
	return missing
}
