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
func runtimes(ctx context.Context, r *Report, finder runtime.Finder, cfg config.Config, daemons []daemon) (chosen runtime.Binary) {
	// The shim inherits containerd's PATH; this process has a user's.
	paths := []string{}
	for _, d := range daemons {
		if d.PID != 0 && !slices.Contains(paths, d.Path) {
			paths = append(paths, d.Path)
		}
	}
	if len(paths) == 0 {
		paths = []string{os.Getenv("PATH")}
	}
	for _, path := range paths {
		bin, err := finder.Find(ctx, "", cfg.Runtime.Binary, path)
		if err != nil {
			r.bad(Failed, "OCI runtime", "apt-get install runc, or set runtime.binary", "%v", err)
			continue
		}
		chosen = bin
		switch {
		case bin.Version == "":
			r.bad(Degraded, "OCI runtime", "use runc or crun (runtime.binary)", "%s is neither runc nor crun", bin.Path)
		case bin.Features == nil:
			r.ok("OCI runtime", "%s; specification %s, no features command", bin, bin.SpecVersion)
		default:
			r.ok("OCI runtime", "%s; specification %s", bin, bin.SpecVersion)
		}
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
