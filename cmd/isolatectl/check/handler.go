// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

// handler is a runtime of containerd's Kubernetes interface.
type handler struct{ host.Handler }

// runcType is the type whose options containerd sends in a form of their own.
const runcType = "io.containerd.runc.v2"

// ours tells whether the handler is meant to start the shim, in a right form or
// a wrong one.
func (h handler) ours() bool {
	return isShim(h.Type) || isShim(h.Path) || isShim(h.Option("BinaryName")) || misspelt(h.Type)
}

// isShim tells whether a runtime's name or path means the shim.
func isShim(name string) bool {
	return name == host.RuntimeType || path.Base(name) == host.ShimName
}

// misspelt tells whether a name means the shim and leads containerd elsewhere.
func misspelt(name string) bool {
	return !isShim(name) && !strings.Contains(name, "/") && strings.Contains(name, "isolate")
}

// program is what containerd looks for by a runtime's name: its last two parts.
func program(name string) string {
	parts := strings.Split(name, ".")
	if len(parts) < 2 {
		return "nothing"
	}
	return "containerd-shim-" + strings.Join(parts[len(parts)-2:], "-")
}

// systemd tells whether the handler's containers get cgroups of systemd.
func (h handler) systemd(cfg config.Config) bool {
	asked, ok := h.Options["SystemdCgroup"].(bool)
	return ok && asked || cfg.Runtime.SystemdCgroup
}

// given are the options that say something.
func (h handler) given() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(h.Options)) {
		switch v := h.Options[name].(type) {
		case string:
			if v != "" {
				list = append(list, fmt.Sprintf("%s = %q", name, v))
			}
		case bool:
			if v {
				list = append(list, name+" = true")
			}
		}
	}
	return strings.Join(list, ", ")
}

// surroundings are what a handler is judged by.
type surroundings struct {
	Who    string        // whose handler it is: "process 7"
	Config config.Config // of isolate
	// Shim is the program that containerd starts, or ShimErr why it cannot.
	Shim    string
	ShimErr error
	// Runtime is the OCI runtime that the shim then uses, or RuntimeErr.
	Runtime    string
	RuntimeErr error
	// Running is what a running containerd says of the handler; nil if none runs, or
	// does not say.
	Running *host.HandlerState
	// Driver is the cgroup driver that containerd tells a kubelet, "" if that is not
	// known.
	Driver string
	// HostSystemd is set where systemd runs.
	HostSystemd bool
}

// judge tells what is wrong with a handler that is ours, or what it starts.
func (h handler) judge(s surroundings) []Line {
	what := fmt.Sprintf("CRI runtime %s, %s", h.Name, s.Who)
	line := func(result Result, fix, format string, args ...any) Line {
		return Line{What: what, Result: result, Reason: fmt.Sprintf(format, args...), Fix: fix}
	}
	// Those that keep pods from starting, or start something else.
	switch {
	case misspelt(h.Type) && h.Path == "":
		return []Line{line(Failed, `set runtime_type = "`+host.RuntimeType+`"`, "runtime_type %q makes containerd look for %s", h.Type, program(h.Type))}
	case isShim(h.Option("BinaryName")):
		return []Line{line(Failed, `remove BinaryName, and set runtime_type = "`+host.RuntimeType+`"`,
			"BinaryName is for OCI runtimes: runc's shim would call %s as one", h.Option("BinaryName"))}
	case h.Path != "" && !isShim(h.Path):
		return []Line{line(Degraded, "remove runtime_path, or let it name "+host.ShimName, "runtime_path %s is another program, and pods are not isolated", h.Path)}
	case s.ShimErr != nil:
		return []Line{line(Failed, "install "+host.ShimName+" there, or correct the path", "containerd cannot start the shim: %v", s.ShimErr)}
	case s.RuntimeErr != nil:
		return []Line{line(Failed, "install runc, or correct BinaryName or runtime.binary", "%v", s.RuntimeErr)}
	}
	var lines []Line
	if h.Type != runcType && len(h.Options) > 0 {
		lines = append(lines, line(Degraded, "remove the options table and put its settings into "+config.Dir+"/config.toml",
			"it has an options table: containerd then fails to start pods with hostUsers: false"))
	}
	lines = append(lines, h.judgeCgroups(s, line)...)
	if reason := unmappable(h.Snapshotter); reason != "" {
		lines = append(lines, line(Failed, "give the runtime another one: snapshotter = \"overlayfs\"", "snapshotter %s %s", h.Snapshotter, reason))
	}
	if hidden := h.hidden(s.Config.Annotations.Allow); len(hidden) > 0 {
		lines = append(lines, line(Degraded, `add pod_annotations = ["`+config.AnnotationPrefix+`*"]`,
			"pods' annotations %s are allowed, and containerd does not pass them on", strings.Join(hidden, ", ")))
	}
	if len(lines) > 0 {
		return lines
	}
	const restart = "restart containerd; what runs goes on"
	switch {
	case s.Running == nil || s.Running.UserNamespaces:
	case !s.Running.Known:
		return []Line{line(Degraded, restart, "containerd does not know it yet")}
	default:
		return []Line{line(Degraded, restart+"; if that does not help, look into its log for the runtime",
			"containerd refuses it pods with hostUsers: false: it asks the shim what it can do when it starts, and got no answer then")}
	}
	driver := "the caller's cgroup driver" // by the names of cgroups
	if h.systemd(s.Config) {
		driver = "cgroup driver systemd"
	} else if s.Driver != "" {
		driver = "cgroup driver " + s.Driver
	}
	reason := fmt.Sprintf("starts %s, which uses %s with %s", s.Shim, s.Runtime, driver)
	if given := h.given(); given != "" {
		reason += "; options " + given
	}
	return []Line{line(OK, "", "%s", reason)}
}

// judgeCgroups compares the handler's cgroup driver with the kubelet's,
// which decides in which form a cgroup is named. Where that is systemd's, the shim
// goes by it.
func (h handler) judgeCgroups(s surroundings, line func(Result, string, string, ...any) Line) []Line {
	systemd := h.systemd(s.Config)
	off := "set runtime.systemd_cgroup = false in " + config.Dir + "/config.toml"
	if h.Type == runcType && !s.Config.Runtime.SystemdCgroup {
		off = "set SystemdCgroup = false in the runtime's options"
	}
	switch {
	case systemd && !s.HostSystemd:
		return []Line{line(Failed, off, "its cgroup driver is systemd, which does not run on this host")}
	case systemd && s.Driver == "cgroupfs":
		return []Line{line(Failed, off, "its cgroup driver is systemd and the kubelet's is cgroupfs: pods cannot start")}
	}
	return nil
}

// hidden are the allowed annotations that no pattern lets through.
func (h handler) hidden(allow []string) []string {
	var out []string
	for _, name := range allow {
		full := config.AnnotationPrefix + name
		if !slices.ContainsFunc(h.Annotations, func(pattern string) bool {
			ok, err := path.Match(pattern, full)
			return ok && err == nil
		}) {
			out = append(out, full)
		}
	}
	return out
}

// lost is the name of a handler of ours in a file, "" if there is none. If the
// effective configuration has none, it is in the wrong place.
func lost(written host.Config) string {
	for _, h := range written.Written() {
		if (handler{h}).ours() {
			return h.Name
		}
	}
	return ""
}

// stanza is what to add to a configuration file, so that there is a handler. written is
// what it says, nil if there is none, and major containerd's version.
func stanza(f host.File, written host.Config, major int) string {
	file, format, head := f.Name, written.Version(), ""
	if written == nil {
		format = min(major, 2) + 1
		head = fmt.Sprintf("version = %d\n", format)
	}
	f.Version, f.Imports = format, written.Imports()
	if g, ok := f.Generator(); ok {
		file, head = g.Source, g.Head
		if dir := f.DropInDir(); dir != "" {
			file, head = filepath.Join(dir, "isolate.toml"), fmt.Sprintf("version = %d\n", format)
		}
	}
	if major < 2 && !slices.ContainsFunc(written.Written(), func(h host.Handler) bool { return h.Name == "runc" }) {
		// Some builds of 1.7 forget their own default when they read a table.
		head += host.Handler{Name: "runc", Type: runcType}.TOML(format)
	}
	return fmt.Sprintf("add this to %s and restart containerd:\n%s%s", file, head,
		strings.TrimSpace(host.Handler{Name: host.HandlerName, Type: host.RuntimeType}.TOML(format)))
}

// unmappable says why the layers of a snapshotter cannot be idmapped, "" if they
// can, or if that is not known of it. Those that serve layers by FUSE need a
// server that asks for it, which none does.
func unmappable(snapshotter string) string {
	switch snapshotter {
	case "fuse-overlayfs", "stargz", "soci", "cvmfs-snapshotter":
		return "serves files by FUSE, which the kernel does not idmap"
	}
	return ""
}
