// SPDX-License-Identifier: Apache-2.0

// Package vm runs a command under another kernel: Debian's 5.10, 6.1, 6.12 or
// 7.x in a QEMU that emulates the processor, with control groups v2 or v1, and
// a tiny init or systemd as PID 1. It needs root, apt-get, mkfs.ext4 and the Go
// toolchain, and no hardware virtualization. Everything comes from Debian
// packages that are unpacked into the cache and not installed.
//
//	go run ./integration/cmd/vmrun --kernel 6.1 -- uname -r
//	go test -exec "/path/to/vmrun --kernel 6.12 --" ./idmap/...
//
// # What the command finds
//
// The environment, the working directory and all files are the caller's: the
// host's root is shared read-only over 9p, below an overlay that takes writes
// and is thrown away. So a test binary in /tmp runs, and what earlier runs put
// into the cache is there. Exit code, stdout and stderr come back; stdin is
// /dev/null, and there is no network but loopback. Files that the host changes
// meanwhile may or may not be seen.
//
// The root is an overlay, on which no other overlay can have its upper
// directory, and which cannot be idmapped. Therefore /vm is an ext4 disk of
// 20 GB, TMPDIR is /vm/tmp, and /var/lib/{containerd,containers,docker,
// isolate,kubelet} are on that disk too. /run is empty. A directory given as a
// share is writable through to the host.
//
// Under cgroup v2 all controllers are enabled in the root. Under v1 each has a
// hierarchy of its own, or with systemd those that it makes. The modules for
// containers are there, and are loaded by modprobe or by the kernel itself;
// drivers of hardware are not. With systemd, the command is a service with a
// delegated group; of the host's units only those start that every system has.
//
// # What it costs
//
// Measured on two cores that are busy otherwise, one virtual processor, from
// the call to its return, everything cached: 5.10 3.3 s, 6.1 2.6 s, 6.12 3.8 s,
// 7.x 4 to 7 s; with systemd 6 to 7 s (6.12). The first run of a kernel takes
// 7 to 20 s more, and 57 to 108 MB to download; the first of all takes 8 s for
// QEMU. On disk a kernel is 180 MB, QEMU is 140 MB.
//
// A command that computes takes about ten times as long as on the host. A
// second virtual processor is a loss where the host has two: the same suite took
// 31 s with one and 55 s with two. Such runs are for finding races.
//
// # Decisions
//
// 9p, and not virtiofs: under emulation virtiofs let the guest run code that
// was no longer there. The ELF kernel, entered by PVH, and not the compressed
// one: 4 s less. One static program as init, and not a shell: 2 s less. QEMU
// 7.2, and not 10.0, which took half as long again. One stream for everything
// between host and guest (package wire), and files without names for disk and
// initramfs, so that a runner that is killed leaves nothing behind.
//
// Kernels are not pinned to a version: Debian's archive holds only the newest
// of each release. The first line of a run names it.
//
// What does not belong here: anything about containers, and networks between
// machines.
package vm
