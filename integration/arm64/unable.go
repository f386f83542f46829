// SPDX-License-Identifier: Apache-2.0

package arm64

// unable are the tests that the emulator cannot run: packages, or tests in them by a
// pattern, and why.
var unable = map[string]struct{ tests, why string }{
	"idmap":        {why: noAgain},
	"idmap/chown":  {why: noAgain},
	"idmap/pool":   {"^Test(ThousandConcurrent|(Init|Cgroup)OutlivesShim)$", noAgain + "; the first hangs, with a thousand threads at one lock"},
	"shim/cgroup":  {why: noAgain},
	"shim/notify":  {why: "the emulator has no seccomp notification, and no clone3(2)"},
	"shim/lxcfs":   {"^TestLookAt", noAgain},
	"shim/runtime": {"^TestInspectUnderAReaper$", noAgain},
	"shim/heal":    {"^TestFindServers$", noAgain},
	"shim/record":  {why: noAgain},
	"shim/stage": {
		"^Test(Programs|IsSystemd|OverlayGivenAsDirectory|SnapshotOf)$",
		"the emulator knows neither openat2(2) nor the mount that statx(2) tells",
	},
}

// noAgain is the reason of those that execute their own program once more, in
// namespaces for the most part.
const noAgain = "the machine's kernel does not execute programs for arm64, and they execute themselves"
