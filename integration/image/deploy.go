// SPDX-License-Identifier: Apache-2.0

package image

import "github.com/isolate-shim/isolate/integration/apt"

// Lxcfs holds lxcfs alone, as deploy/Containerfile has it before the project's
// own programs come in.
const Lxcfs Name = "image-lxcfs"

var deploy = []Definition{
	{Name: Lxcfs, Reference: "docker.io/local/lxcfs:6", Suite: apt.Trixie, Layers: []Layer{{Packages: []string{"lxcfs"}}}},
}
