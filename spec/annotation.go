// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Obeyed is an annotation by which a client tells the OCI runtime, or containerd's
// shim, to do something that the rest of the spec does not say.
type Obeyed struct {
	// Name is the whole name, or the beginning of names if it ends with a dot.
	Name string
	// By names who obeys it.
	By string
	// Does says what happens.
	Does string
}

// GroupAnnotation puts a container into the shim of a group.
const GroupAnnotation = "io.containerd.runc.v2.group"

// obeyed are the annotations that are known to be obeyed, from the sources of crun
// 1.8 to 1.26 (find_annotation, crun.1), runc 1.1 to 1.5 (SearchLabels,
// specconv.initSystemdProps) and containerd 2.4's shim for runc. Runtimes name
// some of them by themselves (potentiallyUnsafeConfigAnnotations of `features`).
// Names that begin as these do are obeyed by versions to come, or by nobody.
var obeyed = []Obeyed{
	{"run.oci.", "crun", "is crun's own name space"},
	{"run.oci.delegate-cgroup", "crun", "puts the container into a group below its own"},
	{"run.oci.handler", "crun", "runs the container by krun (a virtual machine), wasm or mono"},
	{"run.oci.hooks.stderr", "crun", "appends what hooks say to a file of the host, which is made"},
	{"run.oci.hooks.stdout", "crun", "appends what hooks print to a file of the host, which is made"},
	{"run.oci.keep_original_groups", "crun", "keeps the groups of containerd's root"},
	{"run.oci.mount_context_type", "crun", "labels mounts in another way for SELinux"},
	{"run.oci.pidfd_receiver", "crun", "sends a descriptor of the first process to a socket of the host"},
	{"run.oci.seccomp.plugins", "crun", "loads libraries of the host into crun"},
	{"run.oci.seccomp.receiver", "crun", "sends the descriptor of notified system calls to a socket of the host"},
	{"run.oci.seccomp_bpf_data", "crun", "replaces the seccomp profile"},
	{"run.oci.seccomp_fail_unknown_syscall", "crun", "fails for system calls that libseccomp does not know"},
	{"run.oci.systemd.force_cgroup_v1", "crun", "mounts cgroup v1 in the container"},
	{"run.oci.systemd.subgroup", "crun", "puts the container into a group below its unit"},
	{"run.oci.timens_offset", "crun before 1.9", "makes a time namespace"},
	{"bundle", "runc", "tells hooks another bundle than the container's"},
	{"krun.", "crun", "sets up the virtual machine of krun"},
	{"module.wasm.image/variant", "crun", "runs the container by a wasm engine"},
	{"org.criu.", "runc and crun", "belongs to CRIU"},
	{"org.criu.config", "runc and crun", "configures CRIU by a file of the host"},
	{"org.systemd.property.", "runc and crun", "sets any property of the container's systemd unit"},
	{GroupAnnotation, "containerd", "puts the container into the shim of another one"},
}

// ObeyedAnnotations returns the table of what is obeyed.
func ObeyedAnnotations() []Obeyed { return slices.Clone(obeyed) }

// IsObeyed tells whether somebody obeys an annotation, or might.
func IsObeyed(name string) bool {
	return slices.ContainsFunc(obeyed, func(o Obeyed) bool { return named(name, []string{o.Name}) })
}

// named tells whether a name is in a list, or begins with an entry that ends with a
// dot.
func named(name string, list []string) bool {
	return slices.ContainsFunc(list, func(have string) bool {
		return name == have || strings.HasSuffix(have, ".") && strings.HasPrefix(name, have)
	})
}

// annotations removes the annotations by which a client tells the runtime what the
// rest of the spec does not say. Some clients may choose nothing but annotations: one
// behind an authorization plugin of Docker's, or the author of a pod. Such a client
// could have files of the host written, and the seccomp profile replaced.
func annotations(s *specs.Spec, p *Plan) ([]string, error) {
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(s.Annotations)) {
		if !IsObeyed(name) && !named(name, p.Annotations.Obeyed) || named(name, p.Annotations.Allowed) || name == typeAnnotation {
			continue // crun runs no sandbox of a pod by wasm: that is all that it does by its type
		}
		delete(s.Annotations, name)
		warnings = append(warnings, fmt.Sprintf("annotation %q was removed, since the OCI runtime obeys it; to allow it add it to annotations.allow in /etc/isolate/config.toml", name))
	}
	return warnings, nil
}
