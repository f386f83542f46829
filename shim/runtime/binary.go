// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/mod/semver"
)

// Kind tells the runtimes apart that isolate treats differently.
type Kind string

// The kinds of runtime. What is not runc or crun is driven as runc is.
const (
	Runc  Kind = "runc"
	Crun  Kind = "crun"
	Other Kind = "other"
)

// Binary is an OCI runtime and what it says of itself.
type Binary struct {
	// Path is absolute.
	Path string `json:"path"`
	// Name is the kind, from what `--version` prints and not from the file
	// name: crun is often installed as runc.
	Name Kind `json:"name"`
	// Version is the runtime's own version, such as "1.1.5+ds1"; "" if it
	// prints none.
	Version string `json:"version,omitempty"`
	// SpecVersion is the newest version of the runtime specification that it
	// says it knows: ociVersionMax of its features, else the "spec:" line of
	// `--version`, else "".
	SpecVersion string `json:"specVersion,omitempty"`
	// Features is what `features` prints, nil if the runtime has no such
	// command. See [InfoFeatures] for what containerd is told.
	Features *features.Features `json:"features,omitempty"`
}

// String is "crun 1.8.1 (/usr/bin/crun)".
func (b Binary) String() string {
	name := string(b.Name)
	if b.Version != "" {
		name += " " + b.Version
	}
	return name + " (" + b.Path + ")"
}

// TimeNamespaces tells whether the runtime joins time namespaces. runc says so in its
// features from 1.2 on. crun does not say it; it can since 0.17, unless it is from
// before 1.22 and was built with a libc from before 2020 (glibc 2.32).
func (b Binary) TimeNamespaces() bool {
	return b.Name == Crun || b.Features != nil && b.Features.Linux != nil && slices.Contains(b.Features.Linux.Namespaces, string(specs.TimeNamespace))
}

// OneUserns tells whether the runtime fails to exec into a container whose
// namespaces belong to more than one user namespace: runc joins the user namespace
// first, before 1.3, and may not join the others then.
func (b Binary) OneUserns() bool {
	return b.Name == Runc && semver.Compare("v"+b.Version, "v1.3.0-rc.1") < 0
}

// OCIVersion returns the ociVersion to write into a config.json that says spec,
// so that this runtime accepts it. It is spec itself unless the runtime knows an
// older minor version only, and then the newest it knows: crun 1.8 answers 1.3.0
// with "unknown version specified". A lower version
// takes nothing away, since runtimes ignore properties they do not know.
func (b Binary) OCIVersion(spec string) string {
	have, want := "v"+b.SpecVersion, "v"+spec
	if !semver.IsValid(have) || !semver.IsValid(want) {
		return spec
	}
	if semver.Compare(semver.MajorMinor(want), semver.MajorMinor(have)) <= 0 {
		return spec
	}
	// "1.0.2-dev" is how development versions say 1.0.2.
	return strings.TrimSuffix(strings.TrimPrefix(semver.Canonical(have), "v"), semver.Prerelease(have))
}

// parseVersion reads what `<runtime> --version` prints. These are the forms of
// runc 1.0 to 1.5 and crun 0.20 to 1.21:
//
//	runc version 1.1.5+ds1          crun version 1.8.1
//	commit: 1.1.5+ds1-1+deb12u1     commit: f8a096be060b22cc
//	spec: 1.0.2-dev                 rundir: /run/crun
//	go: go1.19.8                    spec: 1.0.0
//
// Others are taken as they come: a name, a number and maybe a spec line.
func parseVersion(output string) (name Kind, version, spec string) {
	name = Other
	for n, line := range strings.Split(output, "\n") {
		line = strings.TrimSpace(line)
		if n == 0 {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			switch words[0] {
			case "runc":
				name = Runc
			case "crun":
				name = Crun
			}
			version = words[len(words)-1]
			continue
		}
		if s, ok := strings.CutPrefix(line, "spec:"); ok && spec == "" {
			spec = strings.TrimSpace(s)
		}
	}
	return name, version, spec
}
