// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/containerd/cgroups/v3"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

// dockers reports on the running dockerds, or on the configuration of one that
// does not run. It returns where they keep images, and those that have a
// containerd in themselves.
func dockers(ctx context.Context, r *Report, cfg config.Config, daemons []daemon) (roots []string, within []daemon) {
	h := dockerHost{Executable: executable, Config: cfg, Systemd: systemdRuns(), Unified: cgroups.Mode() == cgroups.Unified}
	running := host.Find("/proc", "dockerd")
	for _, p := range running {
		h.Who = fmt.Sprintf("process %d", p.PID)
		what := "Docker, " + h.Who
		if p.Rootless {
			r.note(what, "", "rootless: it cannot use the shim, which needs root")
			continue
		}
		printed, err := p.Run(ctx, "--version")
		if err != nil || !strings.HasPrefix(string(printed), "Docker version ") {
			continue // it has ended, or is another program of that name
		}
		h.Version = strings.TrimSpace(string(printed))
		d, err := readDocker(p.Args)
		if err != nil {
			r.bad(Degraded, what, "correct it", "%v", err)
		}
		used := d.containerd(ctx, p, daemons)
		h.Containerd = "containerd in " + used.who()
		if used.PID == p.PID {
			used.checkShim(ctx, r)
			within = append(within, used)
		}
		_, h.ShimErr = used.findShim()
		r.Lines = append(r.Lines, d.judge(h)...)
		roots = append(roots, d.DataRoot)
	}
	if len(running) == 0 {
		d, err := readDocker(nil)
		h.Who = d.Config
		if err != nil {
			r.bad(Degraded, "Docker, "+h.Who, "correct it", "%v", err)
			return nil, nil
		}
		r.Lines = append(r.Lines, d.judge(h)...)
	}
	return roots, within
}

// readDocker reads what a dockerd of that command line reads.
func readDocker(args []string) (docker, error) {
	d := dockerDefaults().withArgs(args)
	data, err := os.ReadFile(d.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, nil
	case err != nil:
		return d, fmt.Errorf("read configuration: %w", err)
	}
	both, err := d.withFile(data)
	if err != nil {
		return d, fmt.Errorf("%s: %w", d.Config, err)
	}
	return both.withArgs(args), nil
}

// containerd returns the containerd that a dockerd uses: the one it was told, the
// one it has started, the system's if that answers, or, from Docker 29 on, one in
// dockerd itself, which looks for the shim as dockerd would.
func (d docker) containerd(ctx context.Context, p host.Process, daemons []daemon) daemon {
	address := d.Containerd
	for _, c := range daemons {
		if address == "" && c.Parent == p.PID || address != "" && sameSocket(address, c.Address) {
			return c
		}
	}
	if address == "" && answers(ctx, defaultAddress) == nil {
		for _, c := range daemons {
			if sameSocket(defaultAddress, c.Address) {
				return c
			}
		}
	}
	return daemon{Process: p}
}

// sameSocket compares two addresses of sockets.
func sameSocket(a, b string) bool {
	one, err1 := os.Stat(strings.TrimPrefix(a, "unix://"))
	other, err2 := os.Stat(strings.TrimPrefix(b, "unix://"))
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}

// podman says that it is no client, where it is installed.
func podman(r *Report) {
	if file, err := exec.LookPath("podman"); err == nil {
		r.note("Podman", "", "%s starts OCI runtimes itself and cannot use the shim", file)
	}
}
