// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"

	"golang.org/x/mod/semver"

	"github.com/isolate-shim/isolate/shim/runtime"
)

// oldest are the oldest versions that work.
var oldest = map[runtime.Kind]string{runtime.Runc: "1.1", runtime.Crun: "1.8"}

// judgeRuntime tells whether a program can be the OCI runtime of containers.
func judgeRuntime(bin runtime.Binary) (result Result, reason, fix string) {
	const instead = "use runc 1.1 or later or crun 1.8 or later: install one, or set runtime.binary"
	minimum, known := oldest[bin.Name]
	// 1.0.0~rc93 is how Debian writes 1.0.0-rc93.
	version := "v" + strings.ReplaceAll(bin.Version, "~", "-")
	switch {
	case !known && bin.Features == nil && bin.SpecVersion == "":
		return Failed, bin.Path + " is no OCI runtime: it does not say which version of the specification it knows", instead
	case !known:
		return Degraded, bin.String() + " is neither runc nor crun, with which isolate is tested", instead
	case !semver.IsValid(version):
		return Degraded, "the version of " + bin.String() + " is not understood", instead
	case semver.Compare(version, "v"+minimum) < 0:
		return Failed, bin.String() + " is older than " + minimum, instead
	case bin.Features == nil:
		return OK, bin.String() + "; specification " + bin.SpecVersion + ", no features command", ""
	}
	return OK, bin.String() + "; specification " + bin.SpecVersion, ""
}
