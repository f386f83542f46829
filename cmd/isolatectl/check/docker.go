// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

// docker is a dockerd.
type docker struct{ host.Docker }

// dockerHost is what a dockerd is judged by.
type dockerHost struct {
	Who string // "process 7", or its file if it does not run
	// Containerd says which one it uses.
	Containerd string
	// ShimErr is why that does not find the shim by its name.
	ShimErr error
	// Executable tells why a file cannot be executed.
	Executable func(string) error
	Config     config.Config // of isolate
}

// firstDocker is the first version that starts shims by name.
const firstDocker = 23

// judge tells how containers of a dockerd get the shim, and what is in the way.
func (d docker) judge(h dockerHost) []Line {
	what := "Docker, " + h.Who
	line := func(result Result, fix, format string, args ...any) Line {
		return Line{What: what, Result: result, Reason: fmt.Sprintf(format, args...), Fix: fix}
	}
	var lines []Line
	names := []string{host.RuntimeType}
	for _, name := range slices.Sorted(maps.Keys(d.Runtimes)) {
		problems, ours := d.judgeRuntime(name, h)
		lines = append(lines, problems...)
		if ours {
			names = append(names, name)
		}
	}
	if d.Version == "" {
		return lines // it does not run, or does not answer
	}
	major, _, ok := host.Version(d.Version)
	lines = append(lines, d.judgeRest(h, line)...)
	switch {
	case !ok:
		lines = append(lines, line(Degraded, fmt.Sprintf("use Docker %d or later", firstDocker), "its version is not understood: %s", d.Version))
	case major < firstDocker:
		lines = append(lines, line(Failed, fmt.Sprintf("use Docker %d or later", firstDocker), "version %s starts no shims but containerd's own", d.Version))
	case h.ShimErr != nil:
		lines = append(lines, line(Failed, "install "+host.ShimName+" there, or start it with another PATH", "version %s, with %s, which does not find the shim: %v", d.Version, h.Containerd, h.ShimErr))
	default:
		reason := fmt.Sprintf("version %s, with %s: docker run --runtime %s", d.Version, h.Containerd, strings.Join(names, ", or "))
		if slices.Contains(names, d.Default) {
			reason += ", which is the default"
		}
		lines = append(lines, line(OK, "", "%s", reason))
	}
	return lines
}

// judgeRuntime tells what is wrong with an entry that means the shim, and
// whether it starts it.
func (d docker) judgeRuntime(name string, h dockerHost) (problems []Line, ours bool) {
	r := d.Runtimes[name]
	line := func(result Result, fix, format string, args ...any) {
		problems = append(problems, Line{
			What: fmt.Sprintf("Docker runtime %s, %s", name, h.Who), Result: result, Reason: fmt.Sprintf(format, args...), Fix: fix,
		})
	}
	right := fmt.Sprintf(`put "%s": {"runtimeType": "%s"} into runtimes of %s and restart Docker`, name, host.RuntimeType, d.File)
	switch {
	case isShim(r.Path):
		line(Failed, right, "path is for OCI runtimes: runc's shim calls %s as one, and no container starts", r.Path)
		return problems, false
	case misspelt(r.Type):
		line(Failed, right, "runtimeType %q makes containerd look for %s", r.Type, program(r.Type))
		return problems, false
	case !isShim(r.Type):
		return nil, false
	}
	if strings.Contains(r.Type, "/") {
		if err := h.Executable(r.Type); err != nil {
			line(Failed, right, "containerd cannot start the shim: %v", err)
			return problems, false
		}
	}
	// What Docker passes on for a shim other than containerd's own.
	known := []string{"TypeUrl", "ConfigPath", "ConfigBody"}
	var lost []string
	for _, option := range slices.Sorted(maps.Keys(r.Options)) {
		if !slices.Contains(known, option) {
			lost = append(lost, option)
		}
	}
	if len(lost) > 0 {
		line(Degraded, "put these settings into "+config.Dir+"/config.toml, or into a file that the option ConfigPath names",
			"Docker does not pass on the options %s", strings.Join(lost, ", "))
	}
	return problems, true
}

// judgeRest looks at what concerns all runtimes.
func (d docker) judgeRest(h dockerHost, line func(Result, string, string, ...any) Line) []Line {
	var lines []Line
	if d.Cgroups != "systemd" && h.Config.Runtime.SystemdCgroup {
		lines = append(lines, line(Failed, "set runtime.systemd_cgroup = false in "+config.Dir+"/config.toml, or native.cgroupdriver=systemd in exec-opts of "+d.File,
			"its cgroup driver is cgroupfs and isolate's is systemd: no container starts"))
	}
	if d.MapsIDs() {
		lines = append(lines, line(Degraded, "remove userns-remap from "+d.File+" and restart Docker, which then does not see its present images and containers",
			"userns-remap: Docker maps ids itself, all containers to the same, which isolate refuses for a second one unless ids.adopt is \"shared\""))
	}
	if reason := unmappable(d.Storage); reason != "" {
		lines = append(lines, line(Failed, `set "storage-driver": "overlay2" in `+d.File, "storage driver %s %s", d.Storage, reason))
	}
	return lines
}
