// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// runtimes lists the OCI runtimes that containerd would find, and returns the
// one that containers get.
func runtimes(ctx context.Context, r *Report, finder runtime.Finder, cfg config.Config, daemons []daemon, d distro) (chosen runtime.Binary) {
	// The shim inherits containerd's PATH; this process has a user's.
	paths := []string{}
	for _, c := range daemons {
		if c.PID != 0 && !slices.Contains(paths, c.Path) {
			paths = append(paths, c.Path)
		}
	}
	if len(paths) == 0 {
		paths = []string{os.Getenv("PATH")}
	}
	for _, path := range paths {
		bin, err := finder.Find(ctx, "", cfg.Runtime.Binary, path)
		if err != nil {
			r.bad(Failed, "OCI runtime", d.install("runc")+", or correct runtime.binary", "%v", err)
			continue
		}
		chosen = bin
		result, reason, fix := judgeRuntime(bin)
		r.bad(result, "OCI runtime", fix, "%s", reason)
		for _, name := range []string{"runc", "crun"} {
			other, err := finder.Find(ctx, name, "", path)
			switch {
			case errors.Is(err, runtime.ErrNotFound) || err == nil && other.Path == bin.Path:
			case err != nil:
				r.bad(Degraded, "other OCI runtime", "remove or repair it", "%v", err)
			default:
				r.ok("other OCI runtime", "%s; specification %s", other, other.SpecVersion)
			}
		}
	}
	return chosen
}
