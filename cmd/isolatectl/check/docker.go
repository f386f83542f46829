// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/shim/config"
)

// docker is what matters of a dockerd's configuration.
type docker struct {
	Config     string // file
	DataRoot   string
	Containerd string // address; "" for one that dockerd finds or starts itself
	Default    string // runtime of containers that name none
	Runtimes   map[string]dockerRuntime
	Remap      string // userns-remap
	Storage    string // storage driver, "" for the one dockerd chooses
	Driver     string // native.cgroupdriver, "" for the one dockerd chooses
}

// dockerRuntime is an entry of runtimes.
type dockerRuntime struct {
	Path    string         `json:"path"`
	Type    string         `json:"runtimeType"`
	Options map[string]any `json:"options"`
}

// dockerDefaults are dockerd's.
func dockerDefaults() docker {
	return docker{Config: "/etc/docker/daemon.json", DataRoot: "/var/lib/docker"}
}

// withFile layers a daemon.json over d.
func (d docker) withFile(data []byte) (docker, error) {
	var file struct {
		DataRoot   string                   `json:"data-root"`
		Containerd string                   `json:"containerd"`
		Default    string                   `json:"default-runtime"`
		Runtimes   map[string]dockerRuntime `json:"runtimes"`
		Remap      string                   `json:"userns-remap"`
		Storage    string                   `json:"storage-driver"`
		ExecOpts   []string                 `json:"exec-opts"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return d, err
	}
	for field, value := range map[*string]string{
		&d.DataRoot: file.DataRoot, &d.Containerd: file.Containerd, &d.Default: file.Default,
		&d.Remap: file.Remap, &d.Storage: file.Storage,
	} {
		if value != "" {
			*field = value
		}
	}
	d.Runtimes = maps.Clone(d.Runtimes)
	for name, r := range file.Runtimes {
		d.addRuntime(name, r)
	}
	for _, o := range file.ExecOpts {
		d.execOption(o)
	}
	return d, nil
}

// withArgs layers dockerd's command line over d. dockerd does not start if it
// contradicts the file.
func (d docker) withArgs(args []string) docker {
	d.Runtimes = maps.Clone(d.Runtimes)
	fields := map[string]*string{
		"--config-file": &d.Config, "--data-root": &d.DataRoot, "--containerd": &d.Containerd,
		"--default-runtime": &d.Default, "--userns-remap": &d.Remap, "--storage-driver": &d.Storage, "-s": &d.Storage,
	}
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if !inline {
			if i+1 == len(args) {
				break
			}
			value = args[i+1]
		}
		switch name {
		case "--add-runtime":
			if n, path, ok := strings.Cut(value, "="); ok {
				d.addRuntime(n, dockerRuntime{Path: path})
			}
		case "--exec-opt":
			d.execOption(value)
		default:
			if field, ok := fields[name]; ok {
				*field = value
			}
		}
	}
	return d
}

func (d *docker) addRuntime(name string, r dockerRuntime) {
	if d.Runtimes == nil {
		d.Runtimes = map[string]dockerRuntime{}
	}
	d.Runtimes[name] = r
}

func (d *docker) execOption(o string) {
	if name, value, ok := strings.Cut(o, "="); ok && name == "native.cgroupdriver" {
		d.Driver = value
	}
}

// dockerHost is what a dockerd is judged by.
type dockerHost struct {
	Who string // "process 7", or its file if it does not run
	// Version is as it prints it; "" if it does not run.
	Version string
	// Containerd says which one it uses.
	Containerd string
	// ShimErr is why that does not find the shim by its name.
	ShimErr error
	// Executable tells why a file cannot be executed.
	Executable func(string) error
	Config     config.Config // of isolate
	// Systemd is set where systemd runs, and Unified where cgroups are of
	// version 2 alone.
	Systemd, Unified bool
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
	names := []string{runtimeName}
	for _, name := range slices.Sorted(maps.Keys(d.Runtimes)) {
		problems, ours := d.judgeRuntime(name, h)
		lines = append(lines, problems...)
		if ours {
			names = append(names, name)
		}
	}
	if h.Version == "" {
		return lines // it does not run
	}
	version, major, _, ok := parseVersion(h.Version)
	lines = append(lines, d.judgeRest(h, line)...)
	switch {
	case !ok:
		lines = append(lines, line(Degraded, fmt.Sprintf("use Docker %d or later", firstDocker), "its version is not understood: %s", h.Version))
	case major < firstDocker:
		lines = append(lines, line(Failed, fmt.Sprintf("use Docker %d or later", firstDocker), "version %s starts no shims but containerd's own", version))
	case h.ShimErr != nil:
		lines = append(lines, line(Failed, "install "+shimName+" there, or start it with another PATH", "version %s, with %s, which does not find the shim: %v", version, h.Containerd, h.ShimErr))
	default:
		reason := fmt.Sprintf("version %s, with %s: docker run --runtime %s", version, h.Containerd, strings.Join(names, ", or "))
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
	right := fmt.Sprintf(`put "%s": {"runtimeType": "%s"} into runtimes of %s and restart Docker`, name, runtimeName, d.Config)
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
	systemd := d.Driver == "systemd" || d.Driver == "" && h.Unified && h.Systemd
	if !systemd && h.Config.Runtime.SystemdCgroup {
		lines = append(lines, line(Failed, "set runtime.systemd_cgroup = false in "+config.Dir+"/config.toml, or native.cgroupdriver=systemd in exec-opts of "+d.Config,
			"its cgroup driver is cgroupfs and isolate's is systemd: no container starts"))
	}
	if d.Remap != "" {
		lines = append(lines, line(Degraded, "remove userns-remap from "+d.Config+" and restart Docker, which then does not see its present images and containers",
			"userns-remap = %s: Docker maps ids itself, all containers to the same, which isolate refuses for a second one unless ids.adopt is \"shared\"", d.Remap))
	}
	if reason := unmappable(d.Storage); reason != "" {
		lines = append(lines, line(Failed, `set "storage-driver": "overlay2" in `+d.Config, "storage driver %s %s", d.Storage, reason))
	}
	return lines
}
