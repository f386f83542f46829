// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// TestLockedClones: a clone that is moved into a container by descriptor never
// passes the place where the kernel locks flags. Without the detour its root
// makes it writable, with it nobody does.
func TestLockedClones(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableAt(testmounts.Dir(t)))
	dir := testmounts.Dir(t)
	m := idmap.Contiguous(300000, 65536)
	testmounts.Write(t, dir+"/src/file", "")
	tree, err := CloneTree(-1, dir+"/src", CloneOptions{
		Userns: testmounts.Userns(t, m), SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE,
	})
	testmounts.Check(t, err)
	testmounts.Mkdir(t, dir+"/ro")
	testmounts.Attach(t, tree, dir+"/ro")
	testmounts.Mount(t, "tmpfs", dir+"/scratch", "mode=0777")
	before := testmounts.Lines(t, dir)
	locked, err := LockedClones([]string{dir + "/ro"})
	testmounts.Check(t, err)
	defer testmounts.Close(t, locked[0])
	plain, err := CloneTree(-1, dir+"/ro", CloneOptions{})
	testmounts.Check(t, err)
	defer testmounts.Close(t, plain)
	if after := testmounts.Lines(t, dir); after != before {
		t.Errorf("mounts left:\n%s", after)
	}
	cmd := testmounts.Program(t, m, "receive", dir+"/scratch")
	cmd.ExtraFiles = []*os.File{locked[0], plain}
	testmounts.RunProgram(t, cmd)
	if _, err := LockedClones([]string{dir + "/ro", dir + "/missing"}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing source: %v", err)
	}
}

// receive moves mounts it got by descriptor into its own mount namespace, as a
// runtime does for a container.
func receive(args []string) error {
	for fd, want := range map[int]error{3: unix.EPERM, 4: nil} {
		target := fmt.Sprint(args[0], "/", fd)
		if err := os.Mkdir(target, 0o700); err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return os.NewSyscallError("move_mount", err)
		}
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		if !errors.Is(err, want) {
			return fmt.Errorf("remount of descriptor %d gave %w, want %w", fd, err, want)
		}
	}
	return nil
}
