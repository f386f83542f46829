// SPDX-License-Identifier: Apache-2.0

package image

import "github.com/isolate-shim/isolate/integration/apt"

// Lxcfs holds lxcfs alone, as deploy/Containerfile has it before the project's
// own programs come in.
const Lxcfs Name = "image-lxcfs"

// Rpm is Demo with rpm, for which Debian is a foreign system: it knows no package there.
const Rpm Name = "image-rpm"

var deploy = []Definition{
	{Name: Lxcfs, Reference: "docker.io/local/lxcfs:6", Suite: apt.Trixie, Layers: []Layer{{Packages: []string{"lxcfs"}}}},
	{Name: Rpm, Reference: "docker.io/local/rpm:1", Base: Demo, Layers: []Layer{{Packages: []string{"rpm"}}}},
}
