// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

// dockers reports on the running dockerds, or on the configuration of one that
// does not run. It returns where they keep images, and those that have a
// containerd in themselves.
func dockers(ctx context.Context, r *Report, cfg config.Config, daemons []daemon) (roots []string, within []daemon) {
	running := host.Find("/proc", "dockerd")
	if len(running) == 0 {
		running = []host.Process{{}}
	}
	for _, p := range running {
		h := dockerHost{Who: fmt.Sprintf("process %d", p.PID), Executable: host.Executable, Config: cfg}
		if p.Rootless {
			r.note("Docker, "+h.Who, "", "rootless: it cannot use the shim, which needs root")
			continue
		}
		if p.PID != 0 && !host.IsDocker(ctx, p) {
			continue // it has ended, or is another program of that name
		}
		read, err := host.InspectDocker(ctx, p)
		d := docker{read}
		fix := "look into its log"
		if p.PID == 0 {
			h.Who, fix = d.File, "correct it"
		}
		if err != nil {
			r.bad(Degraded, "Docker, "+h.Who, fix, "%v", err)
			continue
		}
		if p.PID != 0 {
			used := d.containerd(ctx, daemons)
			h.Containerd = "containerd in " + used.who()
			if used.PID == p.PID {
				used.checkShim(ctx, r)
				within = append(within, used)
			}
			_, h.ShimErr = used.Program(host.ShimName)
			roots = append(roots, d.Root)
		}
		r.Lines = append(r.Lines, d.judge(h)...)
	}
	return roots, within
}

// containerd returns the containerd that a dockerd uses: the one it was told, the
// one it has started, the system's if that answers, or, from Docker 29 on, one in
// dockerd itself, which looks for the shim as dockerd would.
func (d docker) containerd(ctx context.Context, daemons []daemon) daemon {
	address := d.Containerd
	for _, c := range daemons {
		if address == "" && c.Parent == d.PID || address != "" && sameSocket(address, c.Address) {
			return c
		}
	}
	if address == "" && host.Answers(ctx, host.DefaultAddress) == nil {
		for _, c := range daemons {
			if sameSocket(host.DefaultAddress, c.Address) {
				return c
			}
		}
	}
	return daemon{host.Containerd{Process: d.Process}}
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
