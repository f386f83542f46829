// SPDX-License-Identifier: Apache-2.0

package arm64

// unable are the tests that the emulator cannot run: packages, or tests in them by a
// pattern, and why.
var unable = map[string]struct{ tests, why string }{
	"idmap/chown":  {why: noAgain},
	"idmap/rootfs": {why: noAgain},
	"idmap/pool": {
		"^Test(ThousandConcurrent|Forget|(Init|Cgroup)OutlivesShim|LostFiles|PodSharesAdoptedIDs|AdoptsNothingThatOutlivedItsContainer|WhoHasIDsKeepsTheRange|ReleaseWhileInUse)$",
		noAgain + "; the first hangs, with a thousand threads at one lock, and for the last the emulator makes up /proc/self/stat",
	},
	"internal/linux/cgroupfs":  {why: noAgain},
	"internal/linux/exhausted": {why: noAgain},
	"internal/linux/fork":      {why: noClone3},
	"internal/linux/lookup":    {why: noAgain},
	"internal/linux/mount":     {why: noAgain},
	"internal/linux/ns":        {"^TestUserns$", noUserns},
	"internal/linux/timens":    {"^Test(New|NewRefused|Of|NamespaceOfAKilledProcess)$", noClone3},
	"internal/linux/userns":    {why: noAgain},
	"shim/cgroup":              {why: noAgain},
	"shim/notify":              {why: "the emulator has no seccomp notification, and no clone3(2)"},
	"shim/lxcfs":               {"^TestProbeMount", noAgain},
	"shim/runtime":             {"^TestInspectUnderAReaper$", noAgain},
	"shim/ending":              {"^TestProcessesUnknownToTheRuntimeEnd$", noUserns},
	"shim/heal":                {why: noAgain},
	"shim/member":              {"^Test(Confined|Verify|VerifyEnded)$", noUserns},
	"shim/task":                {"^Test(BoundNodes|Adopted|Facts|RuntimeKeepsContainer)$", noClone3 + ", and makes no user namespaces"},
	"shim/record":              {why: noAgain},
	"shim/temporary":           {"^TestSweep$", "the emulator makes up /proc/self/stat"},
	"shim/visit":               {why: noUserns},
	"shim/stage": {
		"^Test(Programs|StagedVolume|UnmappedVolume|StagedRootfs|RootfsThatCannotBeMapped|Reachable|PlainRootfsOfADirectory|PremountedIsReplacedOnlyIfItIsTheSame)$",
		noClone3 + ", and does not tell the mount of statx(2)",
	},
}

const noClone3 = "the emulator has no clone3(2)"

const noUserns = "the emulator makes no user namespaces"

// noAgain is the reason of those that execute their own program once more, in
// namespaces for the most part.
const noAgain = "the machine's kernel does not execute programs for arm64, and they execute themselves"
