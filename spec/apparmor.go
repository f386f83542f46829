// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// AppArmor is what a host has of it, as far as containers are concerned. The zero
// value leaves every profile as it is.
type AppArmor struct {
	// Enabled is set if the kernel confines processes by it.
	Enabled bool
	// Profile is a loaded profile that permits nesting; empty if there is none.
	Profile string
}

// engineProfiles are those that engines give to containers for which nobody asked
// for one: Docker, containerd's CRI plugin (with RuntimeDefault as well), nerdctl.
// All of them deny mounts.
var engineProfiles = []string{"docker-default", "cri-containerd.apparmor.d", "nerdctl-default"}

// confined puts a process under the profile that permits nesting.
//
// A process without a profile gets it too. ctr sends no profile; Kubernetes sends none
// for privileged containers and for Unconfined, and the profile permits what these
// want, such as mounts. A profile that somebody has asked for by name stays; so does
// Docker's "unconfined".
func (a AppArmor) confined(proc *specs.Process) {
	given := proc.ApparmorProfile
	if a.Enabled && a.Profile != "" && (given == "" || slices.Contains(engineProfiles, given)) {
		proc.ApparmorProfile = a.Profile
	}
}

// denies warns of a profile under which nothing can be nested.
//
// The container runs under that profile all the same. It may nest nothing, and isolate
// does not confine a container less than the engine does.
func (a AppArmor) denies(proc *specs.Process) []string {
	if given := proc.ApparmorProfile; a.Enabled && a.Profile == "" && slices.Contains(engineProfiles, given) {
		return []string{fmt.Sprintf("AppArmor profile %s denies mounts, so that no containers and no systemd run inside: load isolate-default (isolatectl apparmor load) to have it used instead", given)}
	}
	return nil
}
