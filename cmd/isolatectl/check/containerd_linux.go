// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/version"
)

// shimName is the program that containerd looks for.
const shimName = "containerd-shim-isolate-v1"

// findDaemons returns the running containerds, Docker's own among them, or the
// defaults of one if none runs.
func findDaemons(ctx context.Context, r *Report) []daemon {
	var found []daemon
	for _, p := range host.Find("/proc", "containerd") {
		if p.Rootless {
			r.note(fmt.Sprintf("containerd, process %d", p.PID), "", "rootless: it cannot use the shim, which needs root")
			continue
		}
		d, err := inspectDaemon(ctx, p)
		if err != nil {
			continue // it has ended, or is another program of that name
		}
		found = append(found, d)
		d.check(ctx, r)
	}
	return found
}

// idleDaemon is what a containerd would be that does not run, by its
// configuration at the usual place.
func idleDaemon(ctx context.Context, r *Report) daemon {
	d := daemon{Process: host.Process{Path: os.Getenv("PATH")}, settings: defaults()}
	if data, err := os.ReadFile(d.Config); err == nil {
		s, err := d.withDump(data)
		if err != nil {
			r.bad(Degraded, "containerd", "correct it", "%s: %v", d.Config, err)
		} else {
			d.settings = s.withArgs(nil)
		}
	}
	d.checkShim(ctx, r)
	return d
}

func inspectDaemon(ctx context.Context, p host.Process) (daemon, error) {
	d := daemon{Process: p}
	printed, err := p.Run(ctx, "--version")
	if err != nil {
		return d, err
	}
	line, _, _ := strings.Cut(string(printed), "\n")
	if !strings.HasPrefix(line, "containerd ") {
		return d, fmt.Errorf("%q is not containerd", d.Exe)
	}
	d.Version = line
	d.Label = p.Label()
	d.settings = defaults().withArgs(p.Args)
	// A containerd that cannot print its configuration is taken to run on its
	// command line and defaults.
	dumpArgs := []string{"config", "dump"}
	if _, err := os.Stat(d.Config); err == nil {
		dumpArgs = append([]string{"--config", d.Config}, dumpArgs...)
	}
	if dumped, err := p.Run(ctx, dumpArgs...); err == nil {
		if s, err := d.withDump(dumped); err == nil {
			d.settings = s.withArgs(p.Args) // which wins, as in containerd
		}
	}
	return d, nil
}

// who names the daemon in a report.
func (d daemon) who() string {
	if d.PID == 0 {
		return d.Config
	}
	return fmt.Sprintf("process %d", d.PID)
}

// major is the first number of the version. One that does not run is taken to be
// of today.
func (d daemon) major() int {
	_, major, _, ok := parseVersion(d.Version)
	if !ok {
		return 2
	}
	return major
}

// check reports on one running containerd.
func (d daemon) check(ctx context.Context, r *Report) {
	what := "containerd, " + d.who()
	v, major, minor, ok := parseVersion(d.Version)
	switch {
	case !ok:
		r.bad(Degraded, what, "use containerd 2.0 or later, or 1.7", "its version is not understood: %s", d.Version)
	case major < 1 || major == 1 && minor < 7:
		r.bad(Failed, what, "use containerd 2.0 or later, or 1.7", "version %s cannot start this shim", v)
	default:
		if err := answers(ctx, d.Address); err != nil {
			r.bad(Failed, what, "look into its log, and restart it", "version %s: %v", v, err)
		} else {
			r.ok(what, "version %s, %s, root %s", v, d.Address, d.Root)
		}
	}
	confinement(ctx, r, what, d.Label, d.Root)
	if changed := d.changed(); changed != "" {
		r.bad(Degraded, what, "restart it; what runs goes on", "%s was changed after it was started, and is not in effect", changed)
	}
	d.checkShim(ctx, r)
}

// changed is a configuration file that is newer than the process, "" for none.
func (d daemon) changed() string {
	files := []string{d.Config}
	for _, pattern := range d.Imports {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(d.Config), pattern)
		}
		more, err := filepath.Glob(pattern)
		if err == nil {
			files = append(files, more...)
		}
	}
	for _, file := range files {
		if d.Older(file) {
			return file
		}
	}
	return ""
}

// findShim returns the program that containerd starts for the shim's name: from
// its PATH, else from beside its own program.
func (d daemon) findShim() (string, error) {
	dirs := filepath.SplitList(d.Path)
	if d.Exe != "" {
		dirs = append(dirs, filepath.Dir(d.Exe))
	}
	for _, dir := range dirs {
		if file := filepath.Join(dir, shimName); executable(file) == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", shimName, strings.Join(dirs, ":"))
}

// checkShim reports whether containerd finds the shim.
func (d daemon) checkShim(ctx context.Context, r *Report) {
	const what = "shim"
	file, err := d.findShim()
	if err != nil {
		r.bad(Failed, what, "install "+shimName+" into a directory of containerd's PATH, such as /usr/local/bin, or start containerd with that directory in PATH", "%v", err)
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
func (d daemon) checkCRI(ctx context.Context, r *Report, finder runtime.Finder, cfg config.Config, k kubelet) {
	if d.CRI.Off && !k.Found {
		return
	}
	systemd := systemdRuns()
	s := surroundings{
		Who: d.who(), Config: cfg, Snapshotter: d.CRI.Snapshotter, HostSystemd: systemd,
		Driver: k.driver(d.major(), d.CRI.driver(systemd)),
	}
	any := false
	for _, h := range d.CRI.Handlers {
		h.Path = resolved(h.Path)
		if !h.ours() {
			continue
		}
		any = true
		if s.Shim, s.ShimErr = h.Path, nil; h.Path != "" {
			s.ShimErr = executable(h.Path)
		} else {
			s.Shim, s.ShimErr = d.findShim()
		}
		bin, err := finder.Find(ctx, text(h.Options, "BinaryName"), cfg.Runtime.Binary, d.Path)
		s.Runtime, s.RuntimeErr = bin.String(), err
		r.Lines = append(r.Lines, h.judge(s)...)
	}
	what := "CRI runtimes, " + d.who()
	file := readWritten(d.Config)
	fix := stanza(d.Config, file, d.major())
	switch {
	case d.CRI.Off:
		r.bad(Degraded, what, "remove it from disabled_plugins of "+d.Config+" and restart containerd", "a kubelet runs here, and containerd's Kubernetes interface is disabled")
	case any:
	case file.lost() != "":
		r.bad(Degraded, what, fix, "%s has %s in a table that this containerd does not read", d.Config, file.lost())
	case k.Found:
		r.bad(Degraded, what, fix, "none starts the shim, so that pods cannot use it")
	default:
		r.note(what, fix, "none starts the shim; only Kubernetes needs one")
	}
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

// readWritten reads a configuration file of containerd. One that is wrong does
// not let containerd start, and is not looked at any further.
func readWritten(file string) written {
	data, err := os.ReadFile(file)
	if err != nil {
		return written{}
	}
	w, err := parseWritten(data)
	if err != nil {
		return written{Version: 1}
	}
	return w
}

// systemdRuns tells whether systemd manages this host (sd_booted(3)).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// findKubelet looks for a kubelet, also for those inside of k3s and MicroK8s.
func findKubelet(ctx context.Context) kubelet {
	found := host.Find("/proc", "kubelet", "k3s-server", "k3s-agent", "kubelite")
	if len(found) == 0 {
		return kubelet{}
	}
	p, k := found[0], kubelet{Found: true}
	if filepath.Base(p.Exe) != "kubelet" {
		return k
	}
	if printed, err := p.Run(ctx, "--version"); err == nil {
		k.Version = strings.TrimSpace(string(printed))
	}
	file, driver := kubeletFlags(p.Args)
	k.Driver = driver
	if data, err := os.ReadFile(file); err == nil && k.Driver == "" {
		k.Driver = kubeletDriver(string(data))
	}
	if k.Driver == "" {
		k.Driver = "cgroupfs"
	}
	return k
}

// answers tells whether somebody accepts connections on a socket.
func answers(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		return err
	}
	return conn.Close()
}

// executable tells why a file cannot be executed, nil if it can.
func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable", file)
	}
	return nil
}
