// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

// capV2 is cap_net_raw+ep as a version 2 attribute (linux/capability.h).
var capV2 = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// aclFor is a POSIX ACL with an entry for a user (linux/posix_acl_xattr.h).
func aclFor(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{
		{0x01, 6, 0xffffffff},
		{0x02, 4, uid},
		{0x04, 4, 0xffffffff},
		{0x10, 4, 0xffffffff},
		{0x20, 4, 0xffffffff},
	} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func wantXattr(path, name string, want []byte) error {
	// Room for 32 entries of an ACL: Linux 6.1 maps the ids in one only if the size
	// of the buffer could be that of an ACL (posix_acl_getxattr_idmapped_mnt in
	// fs/posix_acl.c).
	buf := make([]byte, 4+32*8)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", name, path, err)
	}
	if !bytes.Equal(buf[:n], want) {
		return fmt.Errorf("%s of %s is %x, want %x", name, path, buf[:n], want)
	}
	return nil
}

// workload is what an image does, as root of the container.
func workload(args []string) error {
	if err := unix.Chroot(args[0]); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return errors.Join(
		// What is there belongs to root and to the image's users.
		expectOwner("/", "0:0"),
		expectOwner("/changed", "0:0"),
		expectOwner("/owned", "1000:1001"),
		wantXattr("/capable", "security.capability", capV2),
		wantXattr("/acl", "system.posix_acl_access", aclFor(1000)),
		// New things.
		os.WriteFile("/made", []byte("made"), 0o644),
		os.Mkdir("/dir", 0o755),
		os.WriteFile("/dir/user", nil, 0o644),
		os.Chown("/dir/user", 1000, 1000),
		os.WriteFile("/setcap", nil, 0o755),
		unix.Setxattr("/setcap", "security.capability", capV2, 0),
		os.WriteFile("/setacl", nil, 0o644),
		unix.Setxattr("/setacl", "system.posix_acl_access", aclFor(1000), 0),
		// Copy-up, of ordinary and of privileged files, and whiteouts.
		os.WriteFile("/changed", []byte("upper"), 0o644),
		os.Chmod("/capable", 0o700),
		os.Chmod("/owned", 0o600),
		os.Chmod("/acl", 0o640),
		os.Remove("/deleted"),
		os.Rename("/made", "/renamed"),
		os.Link("/renamed", "/linked"),
		wantXattr("/setcap", "security.capability", capV2),
		wantXattr("/capable", "security.capability", capV2),
	)
}

func expectOwner(path, want string) error {
	if got := testmounts.Owner(path); got != want {
		return fmt.Errorf("owner of %s is %s, want %s", path, got, want)
	}
	return nil
}

// inspect is the second start of the same container, with another range.
func inspect(args []string) error {
	if err := unix.Chroot(args[0]); err != nil {
		return err
	}
	content, err := os.ReadFile("/changed")
	if err != nil || string(content) != "upper" {
		return fmt.Errorf("changed file holds %q, %w", content, err)
	}
	if _, err := os.Stat("/deleted"); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleted file: %w", err)
	}
	return errors.Join(
		expectOwner("/", "0:0"),
		expectOwner("/renamed", "0:0"),
		expectOwner("/dir/user", "1000:1000"),
		expectOwner("/owned", "1000:1001"),
		wantXattr("/setcap", "security.capability", capV2),
		wantXattr("/capable", "security.capability", capV2),
		wantXattr("/setacl", "system.posix_acl_access", aclFor(1000)),
		os.WriteFile("/renamed", []byte("again"), 0o644),
		os.WriteFile("/dir/second", nil, 0o644),
		os.RemoveAll("/linked"),
	)
}
