// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/runtime"
)

var (
	debian = distro{"debian"}
	ubuntu = distro{"ubuntu", "debian"}
	fedora = distro{"fedora"}
	flags  = strings.Fields("lxcfs -l --enable-cfs /var/lib/lxcfs")
)

func failing(err error, detail string) error { return fmt.Errorf("%w: %s", err, detail) }

// broken are hosts that are broken on purpose, by the lines that check has for them.
var broken = []struct {
	name string
	line func() []Line
}{
	{"lxcfs is not installed, Debian", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Distro: debian})},
	{"lxcfs is not installed, Ubuntu", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Distro: ubuntu})},
	{"lxcfs is not installed, Fedora", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Distro: fedora})},
	{"lxcfs is not installed, somewhere", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Distro: distro{"nixos"}})},
	{"lxcfs is required and does not run", mounts(lxcfsHost{Mode: config.LXCFSRequire, Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Program: "/usr/bin/lxcfs", Service: true})},
	{"lxcfs is installed without a service", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Program: "/usr/bin/lxcfs"})},
	{"lxcfs runs and its mount is gone", mounts(lxcfsHost{Err: failing(lxcfs.ErrAbsent, "nothing is mounted; install it"), Program: "/usr/bin/lxcfs", Service: true, PID: 77, Args: flags})},
	{"lxcfs is switched off", mounts(lxcfsHost{Mode: config.LXCFSOff, Err: lxcfs.ErrOff})},
	{"lxcfs runs without flags", mounts(lxcfsHost{Root: "/var/lib/lxcfs", Files: []string{"meminfo", "stat"}, Program: "/usr/bin/lxcfs", Service: true, PID: 77, Args: []string{"lxcfs", "/var/lib/lxcfs"}})},
	{"lxcfs runs without one flag and no service", mounts(lxcfsHost{Root: "/var/lib/lxcfs", Files: []string{"meminfo"}, PID: 77, Args: []string{"lxcfs", "--enable-loadavg", "/var/lib/lxcfs"}})},
	{"lxcfs has died", mounts(lxcfsHost{Root: "/srv/lxcfs", Err: fmt.Errorf("%w and left its mount on %q; unmount that", lxcfs.ErrDead, "/srv/lxcfs"), Service: true})},
	{"lxcfs has died, no systemd", mounts(lxcfsHost{Root: "/srv/lxcfs", Err: fmt.Errorf("%w and left its mount on %q; unmount that", lxcfs.ErrDead, "/srv/lxcfs")})},
	{"lxcfs is stopped by a signal", mounts(lxcfsHost{Err: failing(lxcfs.ErrHung, "within 500ms; it is stopped or stuck"), Service: true, PID: 77, Args: flags, Stopped: true})},
	{"lxcfs hangs", mounts(lxcfsHost{Err: failing(lxcfs.ErrHung, "within 500ms; it is stopped or stuck"), Service: true, PID: 77, Args: flags})},
	{"lxcfs 7 on cgroup v1", mounts(lxcfsHost{Err: errors.New("lxcfs refuses access on \"/var/lib/lxcfs\" (input/output error); lxcfs 7 does so on a host with cgroup version 1: install lxcfs 5 or 6"), PID: 77, Args: flags})},
	{"lxcfs serves in part", mounts(lxcfsHost{Root: "/var/lib/lxcfs", Files: []string{"meminfo"}, Skipped: map[string]error{"proc/stat": unix.EIO, "proc/cpuinfo": unix.EACCES}, PID: 77, Args: flags})},
	{"runc of Debian 11", runs(runtime.Binary{Path: "/usr/bin/runc", Name: runtime.Runc, Version: "1.0.0~rc93+ds1", SpecVersion: "1.0.2-dev"})},
	{"crun that is too old", runs(runtime.Binary{Path: "/usr/bin/crun", Name: runtime.Crun, Version: "0.20.1", SpecVersion: "1.0.0"})},
	{"runc of nobody knows when", runs(runtime.Binary{Path: "/usr/bin/runc", Name: runtime.Runc, Version: "main"})},
	{"a runtime that is none", runs(runtime.Binary{Path: "/bin/ls", Name: runtime.Other, Version: "9.1"})},
	{"another runtime", runs(runtime.Binary{Path: "/usr/bin/youki", Name: runtime.Other, Version: "0.5.5", SpecVersion: "1.2.0", Features: &features.Features{OCIVersionMax: "1.2.0"}})},
	{"few ids", func() []Line {
		var r Report
		cfg := config.Default()
		cfg.IDs.Pool = []config.IDRange{{Span: idmap.Span{First: 1 << 30, Size: 65536}}}
		ids(&r, cfg)
		return r.Lines
	}},
	{"Docker is too old", docks(docker{host.Docker{DockerInfo: host.DockerInfo{Version: "20.10.24", Cgroups: "cgroupfs", Storage: "overlay2"}}}, nil)},
	{"Docker does not find the shim", docks(docker{host.Docker{DockerInfo: host.DockerInfo{Version: "29.1.0", Cgroups: "systemd", Storage: "overlay2"}}}, errors.New("containerd-shim-isolate-v1 is not in /usr/bin:/bin"))},
	{"Docker maps ids", docks(docker{host.Docker{File: "/etc/docker/daemon.json", DockerInfo: host.DockerInfo{Version: "29.1.0", Cgroups: "systemd", Storage: "overlay2", Security: []string{"name=userns"}}}}, nil)},
	{"Docker keeps layers by FUSE", docks(docker{host.Docker{File: "/etc/docker/daemon.json", DockerInfo: host.DockerInfo{Version: "29.1.0", Cgroups: "systemd", Storage: "fuse-overlayfs"}}}, nil)},
	{"a handler is misspelt", handles(host.Handler{Name: "isolate", Type: "io.containerd.isolated.v1"}, surroundings{})},
	{"a handler without a shim", handles(host.Handler{Name: "isolate", Type: host.RuntimeType}, surroundings{ShimErr: errors.New("containerd-shim-isolate-v1 is not in /usr/bin")})},
	{"a handler that containerd does not know yet", handles(host.Handler{Name: "isolate", Type: host.RuntimeType}, surroundings{Running: &host.HandlerState{}})},
}

func mounts(l lxcfsHost) func() []Line { return func() []Line { return []Line{l.judge()} } }

func runs(bin runtime.Binary) func() []Line {
	return func() []Line {
		result, reason, fix := judgeRuntime(bin)
		return []Line{{"OCI runtime", result, reason, fix}}
	}
}

func docks(d docker, shim error) func() []Line {
	return func() []Line {
		return d.judge(dockerHost{Who: "process 9", Containerd: "containerd in process 8", ShimErr: shim, Config: config.Default()})
	}
}

func handles(h host.Handler, s surroundings) func() []Line {
	return func() []Line {
		s.Who, s.Config, s.Runtime = "process 8", config.Default(), "runc 1.5.0 (/usr/bin/runc)"
		return handler{h}.judge(s)
	}
}

// TestBrokenHosts compares what check says of each with golden files, for terminals of
// two widths.
func TestBrokenHosts(t *testing.T) {
	t.Parallel()
	fixes := map[string]string{}
	for _, width := range []int{80, 120} {
		var all strings.Builder
		for _, b := range broken {
			var r Report
			r.ok("kernel", "Linux 6.12.48 x86_64")
			for _, l := range b.line() {
				r.add(l)
			}
			fmt.Fprintf(&all, "=== %s, exit status %d\n", b.name, r.ExitCode())
			if err := r.WriteText(&all, Style{Width: width}); err != nil {
				t.Fatal(err)
			}
			for _, l := range r.Lines {
				fixes[b.name] += l.Fix
			}
		}
		for line := range strings.Lines(all.String()) {
			if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "            ") { // to be copied
				continue
			}
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%d columns, of %d:\n%s", n, width, line)
			}
		}
		golden(t, fmt.Sprintf("broken-%d.txt", width), all.String())
	}
	// Causes that look alike take different measures.
	alike := map[string]string{}
	for _, name := range []string{
		"lxcfs is not installed, Debian", "lxcfs is not installed, Fedora", "lxcfs is required and does not run", "lxcfs runs without flags",
		"lxcfs runs and its mount is gone", "lxcfs has died", "lxcfs is stopped by a signal", "lxcfs hangs",
	} {
		if other, ok := alike[fixes[name]]; ok || fixes[name] == "" {
			t.Errorf("%s and %s have one fix: %q", name, other, fixes[name])
		}
		alike[fixes[name]] = name
	}
	if len(broken) < 24 {
		t.Errorf("only %d hosts", len(broken))
	}
}

func TestOptionsNotIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"lxcfs -l --enable-cfs --enable-pidfd /l", ""},
		{"lxcfs --enable-loadavg --enable-cfs /l", ""},
		{"lxcfs -f /l", "-l --enable-cfs"},
		{"lxcfs -l /l", "--enable-cfs"},
	} {
		if got := strings.Join(optionsNotIn(strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
}

func TestParseDistro(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"NAME=\"Debian GNU/Linux\"\nID=debian\n", "apt-get install x"},
		{"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install x"},
		{"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install x"},
		{"ID='opensuse-leap'\nID_LIKE='suse opensuse'\n", "zypper install x"},
		{"ID=nixos\n", "install the package x"},
		{"", "install the package x"},
	} {
		if got := parseDistro(c.text).install("x"); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}
