// SPDX-License-Identifier: Apache-2.0

// Package inside is run by go test -exec, and tells whether it ran in a machine.
package inside

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRootOfAnotherKernel(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	t.Logf("release=%s uid=%d", unix.ByteSliceToString(name.Release[:]), os.Getuid())
	// A mount needs root in the initial user namespace of the guest.
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount: %v", err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatalf("unmount: %v", err)
	}
}
