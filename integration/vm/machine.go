// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/isolate-shim/isolate/integration/vm/wire"
)

// Cgroup is the version of control groups in the guest.
type Cgroup string

// The versions. V1 has no v2 hierarchy beside it.
const (
	CgroupV2 Cgroup = "v2"
	CgroupV1 Cgroup = "v1"
)

// Init is PID 1 of the guest.
type Init string

// What can be PID 1: a program that only reaps, or the systemd of the host.
const (
	InitNone    Init = "none"
	InitSystemd Init = "systemd"
)

// Descriptors that the emulator inherits.
const (
	fdScratch = 3 + iota
	fdInitrd
	fdPort
	fdConsole
)

// cpu leaves out what is slow to emulate: string instructions that claim to be
// fast, AVX, and protections that every access pays for. It saves a quarter of
// the processor time.
const cpu = "max,-erms,-fsrm,-avx,-avx2,-smap,-smep,-mpx,-pku,-umip,-la57"

// parameters of every guest: a serial console with warnings and the traces that go with
// them and nothing less, a machine that goes down
// rather than on after an oops, and no work that only a real machine is safer by.
var parameters = []string{
	"console=ttyS0", "quiet", "loglevel=5", "rdinit=/init", "panic=-1", "oops=panic",
	"mitigations=off", "init_on_alloc=0", "audit=0",
	// Without AppArmor, Debian's kernels would take SELinux instead.
	"apparmor=0", "selinux=0",
	// Not tsc=reliable: a guest that is held up while it finds out how fast the
	// counter is gets it wrong, and then minutes pass in seconds there. Only a
	// watchdog notices, and takes another clock.
	"rcupdate.rcu_expedited=1", "random.trust_cpu=on",
	// At boot Linux counts ticks for a moment and panics if there are none, which
	// is so on a host too busy to emulate them ("IO-APIC + timer doesn't work!").
	"no_timer_check",
}

// commandLine is the kernel's. A parameter that is appended takes the place of its
// namesake here: audit=0 cannot be taken back by audit=1.
func commandLine(c Config) string {
	words := slices.DeleteFunc(slices.Clone(parameters), func(word string) bool {
		name, _, _ := strings.Cut(word, "=")
		return name != "console" && slices.ContainsFunc(c.Append, func(other string) bool {
			return strings.HasPrefix(other, name+"=")
		})
	})
	if c.Cgroup == CgroupV1 {
		words = append(words, "cgroup_enable=memory", "swapaccount=1")
	}
	if c.Init == InitSystemd {
		words = append(words, "systemd.unit=vm.target", "systemd.gpt_auto=0", "systemd.show_status=0", "systemd.firstboot=0")
		if c.Cgroup == CgroupV1 {
			words = append(words, "systemd.unified_cgroup_hierarchy=0", "systemd.legacy_systemd_cgroup_controller=1")
		} else {
			words = append(words, "systemd.unified_cgroup_hierarchy=1")
		}
	}
	return strings.Join(append(words, c.Append...), " ")
}

// machineOptions are the options of the emulator for one guest.
func machineOptions(c Config, vmlinux string) []string {
	options := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "pc,usb=off,vmport=off", "-accel", "tcg", "-cpu", cpu,
		"-smp", strconv.Itoa(c.CPUs), "-m", c.Memory,
		"-kernel", vmlinux, "-initrd", descriptor(fdInitrd), "-append", commandLine(c),
		"-drive", "if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file.locking=off,file=" + descriptor(fdScratch),
		"-device", "virtio-blk-pci,drive=scratch",
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=port,fd=%d", fdPort),
		"-device", "virtserialport,chardev=port,name=" + wire.PortName,
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole),
		"-serial", "chardev:console",
	}
	options = append(options, share(wire.HostTag, "/", "readonly=on,multidevs=remap")...)
	for i, path := range c.Shares {
		options = append(options, share(shareTag(i), path, "multidevs=remap")...)
	}
	return options
}

// share is a 9p file system. The emulator passes owners and modes on as they
// are, which takes root.
func share(tag, path, more string) []string {
	return []string{
		"-fsdev", "local,id=" + tag + ",security_model=none," + more + ",path=" + strings.ReplaceAll(path, ",", ",,"),
		"-device", "virtio-9p-pci,fsdev=" + tag + ",mount_tag=" + tag,
	}
}

func shareTag(i int) string { return "share" + strconv.Itoa(i) }

// descriptor is the path by which the emulator opens what it has inherited.
func descriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
