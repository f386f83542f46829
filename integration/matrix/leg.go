// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"strings"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/vm"
)

// leg is a machine, and what is run on it.
type leg struct {
	kernel vm.Kernel
	cgroup vm.Cgroup
	init   vm.Init
	// what tells legs apart that are the same otherwise.
	what   string
	suites []suite
	// parameters are added to the kernel's command line.
	parameters []string
	// needs are what the suites take from the cache beside the usual.
	needs []string
}

func (l leg) name() string {
	name := string(l.kernel) + "-cgroup-" + string(l.cgroup) + "-" + string(l.init)
	if l.what != "" {
		name += "-" + l.what
	}
	return name
}

// suite is a test program and a choice of its tests.
type suite struct {
	dir string // below the repository
	// tests are patterns as go test -run takes them; none is all.
	tests []string
	env   []string
}

func (s suite) name() string { return strings.ReplaceAll(s.dir, "/", "-") }

// legs are in the order in which they are run.
var legs = []leg{
	{
		kernel: vm.Linux61, cgroup: vm.CgroupV2, init: vm.InitNone,
		suites: []suite{namespaces, mounts, overlays, core, cgroups, hostile, sysctls}, needs: []string{string(peer.Lxcfs5)},
	},
	{kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitSystemd, suites: []suite{cgroupsOnMachine}, parameters: []string{"psi=1"}},
	{kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitNone, suites: []suite{namespaces, mounts, overlays, core, cgroups}},
	{kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitNone, what: "escape", suites: []suite{attackers}, needs: []string{string(peer.Lxcfs5)}},
	{
		kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitNone, what: "programs", suites: []suite{views},
		needs: []string{string(peer.Lxcfs5), string(peer.Runc11), string(image.Systemd257)},
	},
	{kernel: vm.Linux7, cgroup: vm.CgroupV2, init: vm.InitNone, suites: []suite{namespaces, mounts, overlays, core, cgroups}},
	{kernel: vm.Linux510, cgroup: vm.CgroupV1, init: vm.InitNone, suites: []suite{namespaces, mounts, overlays, old}},
	{
		kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitNone, what: "apparmor", suites: []suite{{dir: "integration/apparmor"}},
		parameters: []string{"apparmor=1", "security=apparmor", "audit=1"}, // audit: denials are logged
		needs: []string{
			string(peer.AppArmor2), string(peer.AppArmor3), string(peer.AppArmor4), string(peer.Docker26), string(image.SystemdSlim),
		},
	},
	{
		kernel: vm.Linux612, cgroup: vm.CgroupV2, init: vm.InitNone, what: "selinux", suites: []suite{{dir: "integration/selinux"}},
		parameters: []string{"selinux=1", "security=selinux", "enforcing=0"}, needs: []string{string(peer.Secilc)},
	},
}

// usual is what is in the cache before any machine starts, as they have no network.
var usual = []string{
	string(peer.Containerd24), string(peer.Runc15), string(peer.Crun121), string(peer.Lxcfs6), string(peer.Lxcfs7),
	string(image.Inner), "isolate-programs",
}

// Packages whose tests need no containers.
var (
	namespaces = suite{dir: "internal/linux/userns"}
	mounts     = suite{dir: "internal/linux/mount"}
	overlays   = suite{dir: "idmap/rootfs"}
)

// core are the tests of containers whose outcome a kernel decides, with the newest
// runtimes.
var core = suite{dir: "integration", tests: []string{
	"^TestKernel",
	"^TestConformance$/^(runc-1.5|crun-1.21)$",
	"^TestRootfs(Owners|ReadOnly)$/^(runc-1.5|crun-1.21)",
	"^TestVolumeOwners$/^(runc-1.5|crun-1.21)$",
	"^TestVolumeLocks$/^(runc-1.5|crun-1.21)$/^nesting_with_its_own",
	"^TestVolumePropagation$/^(runc-1.5|crun-1.21)$",
	"^TestModeAdopt$/^(runc-1.5|crun-1.21)$",
	"^TestModeJoin$/^(runc-1.5|crun-1.21)$",
	"^TestLifecycle$/^(runc-1.5|crun-1.21)$",
	"^TestAskedClocks$/^(runc-1.5|crun-1.21)$",
	"^TestCleanup$/^(delete|shim_killed|containerd_killed_and_started)$",
}}

// old are those of a kernel without id-mapped mounts: what it refuses, what moved
// ids do instead, and what clients that map by themselves can do.
var old = suite{dir: "integration", tests: []string{
	"^TestKernel",
	"^TestOldKernel$",
	"^TestModeAdopt(Bundle)?$/^(runc-1.5|crun-1.21)$",
}}

// cgroups is all of package cgroup2.
var cgroups = suite{dir: "integration/cgroup2"}

// hostile are those containers that outlive SIGKILL, or take from others, by what is
// different with version 2.
var hostile = suite{dir: "integration/escape", tests: []string{
	"^TestContainerThatDoesNotEnd$/^crun-1.21$/^(frozen|fuse-own)$/^shim$",
	"^TestContainerThatDoesNotEnd$/^crun-1.21$/^(paused|pids-full)$/^kill$",
	"^TestCapacity$/^runc-1.5$/^processes$",
}}

// attackers are all that try to get out.
var attackers = suite{dir: "integration/escape", tests: []string{"^TestEscape$"}}

// views are what programs see of the machine, in a container and in those inside.
var views = suite{dir: "integration/nested", tests: []string{"^TestSystemd$/^image-systemd-257$/^runc-1.5$/^programs$"}}

// cgroupsOnMachine is the same without a rig, where systemd is process 1.
var cgroupsOnMachine = suite{dir: "integration/cgroup2", env: []string{"ISOLATE_TEST_ON_MACHINE=1"}}

// sysctls are tests of a machine that leaves no room. One kernel has to do.
var sysctls = suite{dir: "integration/sysctl", env: []string{"ISOLATE_TEST_ON_MACHINE=1"}}
