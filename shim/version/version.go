// SPDX-License-Identifier: Apache-2.0

// Package version says which isolate this is. The Makefile has the linker fill it in;
// without that, as with go install, it is what the Go command wrote into the program.
package version

import (
	"fmt"
	"runtime/debug"
)

var (
	// Version is the release, such as v0.1.0.
	Version = ""
	// Revision is the commit.
	Revision = ""
)

func init() {
	if info, ok := debug.ReadBuildInfo(); ok {
		Version, Revision = settle(Version, Revision, info)
	}
}

// settle fills in what the linker has not.
func settle(version, revision string, info *debug.BuildInfo) (string, string) {
	if version == "" {
		version = "unreleased"
		if v := info.Main.Version; v != "" && v != "(devel)" {
			version = v
		}
	}
	if revision == "" {
		revision = "unknown"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return version, revision
}

// String is what `-v` prints.
func String() string { return fmt.Sprintf("isolate %s (%s)", Version, Revision) }
