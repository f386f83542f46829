// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/mod/semver"
)

// libseccompVersion is the annotation in which runc and crun tell their version of
// libseccomp.
const libseccompVersion = "io.github.seccomp.libseccomp.version"

// Runtime says why an OCI runtime cannot report system calls to a listener; nil if it
// can. f is the output of the runtime's command `features`. A runtime that cannot would
// fail to start a container with a listener.
//
// Without features (nil) the answer is that it can: the runtimes in use without that
// command are crun 0.15 to 1.8, which know listeners.
func Runtime(f *features.Features) error {
	if f == nil || f.Linux == nil || f.Linux.Seccomp == nil {
		return nil
	}
	s := f.Linux.Seccomp
	if s.Enabled != nil && !*s.Enabled {
		return errors.New("the runtime is built without seccomp")
	}
	if s.Actions != nil && !slices.Contains(s.Actions, string(specs.ActNotify)) {
		return fmt.Errorf("the runtime does not know %s", specs.ActNotify)
	}
	// runc lists the action even if its libseccomp does not know it.
	if version := f.Annotations[libseccompVersion]; semver.IsValid("v"+version) && semver.Compare("v"+version, "v2.5.0") < 0 {
		return fmt.Errorf("the runtime uses libseccomp %s (needs 2.5)", version)
	}
	return nil
}
