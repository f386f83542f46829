// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Overlay is a mount of overlayfs that a thread is about to make.
type Overlay struct {
	// Root and Cwd are the thread's directories (O_PATH), Mounts its mount namespace.
	Root, Cwd, Mounts *os.File
	// Upper and Work are paths of its options, as it gives them.
	Upper, Work string
}

// Shelve makes sure that an overlay can be mounted, if it can. It asks no file system that
// the container has mounted.
type Shelve func(Overlay) error

// isMount tells whether a system call, by its ABI (AUDIT_ARCH_* of linux/audit.h) and
// number, is mount.
func isMount(arch uint32, nr int32) bool {
	const x32 = 0x40000000 // __X32_SYSCALL_BIT
	switch arch {
	case unix.AUDIT_ARCH_X86_64:
		return nr&^x32 == 165
	case unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_RISCV64:
		return nr == 40
	case unix.AUDIT_ARCH_PPC64LE, unix.AUDIT_ARCH_S390X, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390:
		return nr == 21
	}
	return false
}

// layers returns the directories of an overlay to which it writes, from the options of
// mount(2). Names with a comma or colon in them, which have to be escaped, are not looked at.
func layers(options []byte) (upper, work string) {
	text, _, ended := bytes.Cut(options, []byte{0})
	if !ended || bytes.ContainsRune(text, '\\') {
		return "", ""
	}
	for option := range strings.SplitSeq(string(text), ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "upperdir":
			upper = value
		case "workdir":
			work = value
		}
	}
	return upper, work
}
