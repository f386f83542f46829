// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"os"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
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
		r.bad(Failed, "configuration", "correct it; isolatectl config --describe lists all keys", "%v", err)
		cfg = config.Default()
	} else {
		configured(&r, dir)
	}
	if !kernel(&r) {
		return r
	}
	distro := thisDistro()
	appArmor(&r, cfg)
	daemons, roots := clients(ctx, &r, finder, cfg)
	fileSystems(&r, cfg, roots)
	ids(&r, cfg)
	chosen := runtimes(ctx, &r, finder, cfg, daemons, distro)
	served(ctx, &r, cfg, distro)
	cgroup(&r, cfg, chosen)
	return r
}

// configured tells where the configuration is. The directory need not exist, if nobody
// has named it.
func configured(r *Report, dir string) {
	switch _, err := os.Stat(dir); {
	case err == nil:
		r.ok("configuration", "%s", dir)
	case dir == config.Dir:
		r.ok("configuration", "the defaults, since there is no %s", dir)
	default:
		r.bad(Degraded, "configuration", "correct --config-dir", "the defaults, since there is no %s", dir)
	}
}

// clients reports on all that starts containers here, and returns the
// containerds among it and where images are kept.
func clients(ctx context.Context, r *Report, finder runtime.Finder, cfg config.Config) (daemons []daemon, roots []string) {
	daemons = findDaemons(ctx, r)
	var docker Report
	more, within := dockers(ctx, &docker, cfg, daemons)
	if len(daemons)+len(within) == 0 {
		r.bad(Degraded, "containerd", "start containerd 2.0 or later, or 1.7, and check again", "it is not running, or not in this pid namespace: its defaults are assumed")
		daemons = []daemon{idleDaemon(ctx, r)}
	}
	kubelet := host.HasKubelet()
	for _, d := range daemons {
		d.checkCRI(ctx, r, finder, cfg, kubelet)
		roots = append(roots, d.Root)
	}
	for _, l := range docker.Lines {
		r.add(l)
	}
	podman(r)
	return append(daemons, within...), append(roots, more...)
}
