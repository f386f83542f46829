// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/version"
)

// daemon is a containerd.
type daemon struct{ host.Containerd }

// findDaemons returns the running containerds, Docker's own among them.
func findDaemons(ctx context.Context, r *Report) []daemon {
	var found []daemon
	for _, p := range host.Find("/proc", "containerd") {
		if p.Rootless {
			r.note(fmt.Sprintf("containerd, process %d", p.PID), "", "rootless: it cannot use the shim, which needs root")
			continue
		}
		c, err := host.InspectContainerd(ctx, p)
		if err != nil {
			continue // it has ended, or is another program of that name
		}
		d := daemon{c}
		found = append(found, d)
		d.check(ctx, r)
	}
	return found
}

// idleDaemon is a containerd that does not run.
func idleDaemon(ctx context.Context, r *Report) daemon {
	c, err := host.IdleContainerd()
	if err != nil {
		r.bad(Degraded, "containerd", "correct it", "%v", err)
	}
	d := daemon{c}
	d.checkShim(ctx, r)
	return d
}

// who names the daemon in a report.
func (d daemon) who() string {
	if d.PID == 0 {
		return d.File
	}
	return fmt.Sprintf("process %d", d.PID)
}

// major is the first number of the version. One that does not run is taken to be
// of today.
func (d daemon) major() int {
	major, _, ok := host.Version(d.Version)
	if !ok {
		return 2
	}
	return major
}

// check reports on one running containerd.
func (d daemon) check(ctx context.Context, r *Report) {
	what := "containerd, " + d.who()
	major, minor, ok := host.Version(d.Version)
	switch {
	case !ok:
		r.bad(Degraded, what, "use containerd 2.0 or later, or 1.7", "its version is not understood: %s", d.Version)
	case major < 1 || major == 1 && minor < 7:
		r.bad(Failed, what, "use containerd 2.0 or later, or 1.7", "version %s cannot start this shim", d.Version)
	default:
		if err := host.Answers(ctx, d.Address); err != nil {
			r.bad(Failed, what, "look into its log, and restart it", "version %s: %v", d.Version, err)
		} else {
			r.ok(what, "version %s, %s, root %s", d.Version, d.Address, d.Root)
		}
	}
	confinement(ctx, r, what, d.Label(), d.Root)
	if changed := d.Changed(); changed != "" {
		r.bad(Degraded, what, "restart it; what runs goes on", "%s was changed after it was started, and is not in effect", changed)
	}
	d.checkShim(ctx, r)
}

// checkShim reports whether containerd finds the shim.
func (d daemon) checkShim(ctx context.Context, r *Report) {
	const what = "shim"
	file, err := d.Program(host.ShimName)
	if err != nil {
		r.bad(Failed, what, "install "+host.ShimName+" into a directory of containerd's PATH, such as /usr/local/bin, or start containerd with that directory in PATH", "%v", err)
		return
	}
	printed, err := host.Output(ctx, file, file, "-v")
	said := strings.TrimSpace(string(printed))
	switch {
	case err != nil:
		r.bad(Failed, what, "install it again", "%s: %v", file, err)
	case said != version.String():
		r.bad(Degraded, what, "install shim and isolatectl of one version", "%s is %s, this is %s", file, said, version.String())
	default:
		r.ok(what, "%s is %s", file, said)
	}
}

// checkCRI reports on the handlers of containerd's Kubernetes interface, or how
// to add one.
func (d daemon) checkCRI(ctx context.Context, r *Report, finder runtime.Finder, cfg config.Config, kubelet bool) {
	if d.Effective.NoCRI() && !kubelet {
		return
	}
	s := surroundings{Who: d.who(), Config: cfg, HostSystemd: systemdRuns()}
	if kubelet && d.PID != 0 {
		s.Driver = host.CgroupDriver(ctx, d.Address)
	}
	any := false
	for _, read := range d.Effective.Handlers() {
		h := handler{read}
		h.Path = resolved(h.Path)
		if !h.ours() {
			continue
		}
		any = true
		if s.Shim, s.ShimErr = h.Path, nil; h.Path != "" {
			s.ShimErr = host.Executable(h.Path)
		} else {
			s.Shim, s.ShimErr = d.Program(host.ShimName)
		}
		bin, err := finder.Find(ctx, h.Option("BinaryName"), cfg.Runtime.Binary, d.Path)
		s.Runtime, s.RuntimeErr = bin.String(), err
		if s.Running, err = d.running(ctx, h.Name); err != nil {
			r.bad(Degraded, fmt.Sprintf("CRI runtime %s, %s", h.Name, d.who()), "look into containerd's log", "%v", err)
			continue
		}
		r.Lines = append(r.Lines, h.judge(s)...)
	}
	what := "CRI runtimes, " + d.who()
	text, written := readWritten(d.File)
	fix := stanza(host.File{Name: d.File, Text: text}, written, d.major())
	switch lost := lost(written); {
	case d.Effective.NoCRI():
		r.bad(Degraded, what, "remove it from disabled_plugins of "+d.File+" and restart containerd", "a kubelet runs here, and containerd's Kubernetes interface is disabled")
	case any:
	case lost != "":
		r.bad(Degraded, what, fix, "%s has %s in a table that this containerd does not read", d.File, lost)
	case kubelet:
		r.bad(Degraded, what, fix, "none starts the shim, so that pods cannot use it")
	default:
		r.note(what, fix, "none starts the shim; only Kubernetes needs one")
	}
}

// running is what containerd says of a handler; nil if it does not say, as 1.7.
func (d daemon) running(ctx context.Context, handler string) (*host.HandlerState, error) {
	if d.PID == 0 || d.major() < 2 {
		return nil, nil
	}
	state, err := host.AskHandler(ctx, d.Address, handler)
	return &state, err
}

// resolved is where a path leads, or the path itself if that cannot be told.
func resolved(path string) string {
	if path == "" || isShim(path) {
		return path
	}
	if target, err := filepath.EvalSymlinks(path); err == nil && isShim(target) {
		return target
	}
	return path
}

// readWritten reads a configuration file of containerd, nil if there is none. One
// that is wrong does not let containerd start, and is not looked at any further.
func readWritten(file string) (string, host.Config) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", nil
	}
	if c, err := host.ParseConfig(data); err == nil && c != nil {
		return string(data), c
	}
	return string(data), host.Config{}
}

// systemdRuns tells whether systemd manages this host (sd_booted(3)).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
