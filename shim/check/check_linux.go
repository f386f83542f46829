// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"os"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// Run looks at everything, with the host's configuration in dir. It takes about
// a second on an idle host and touches neither containers nor daemons.
func Run(ctx context.Context, dir string) Report {
	return run(ctx, dir, runtime.Finder{CacheDir: runtime.CacheDir})
}

func run(ctx context.Context, dir string, finder runtime.Finder) Report {
	var r Report
	if os.Geteuid() != 0 {
		r.bad(Failed, "privileges", "run it as root", "not root: nothing can be probed")
		return r
	}
	cfg, _, err := config.Load(dir)
	if err != nil {
		r.bad(Failed, "configuration", "correct it; isolatectl config lists all keys", "%v", err)
		cfg = config.Default()
	} else {
		r.ok("configuration", "%s", dir)
	}
	kernel(&r)
	daemons := findDaemons(ctx, &r)
	fileSystems(&r, cfg, daemons)
	ids(&r, cfg)
	chosen := runtimes(ctx, &r, finder, cfg, daemons)
	served(ctx, &r, cfg)
	cgroup(&r, chosen)
	return r
}
