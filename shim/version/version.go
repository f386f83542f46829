// SPDX-License-Identifier: Apache-2.0

// Package version says which isolate this is. The linker fills it in; see the
// Makefile.
package version

import "fmt"

var (
	// Version is the release, such as v0.1.0.
	Version = "unreleased"
	// Revision is the commit.
	Revision = "unknown"
)

// String is what `-v` prints.
func String() string { return fmt.Sprintf("isolate %s (%s)", Version, Revision) }
