// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockedClones: a clone that is moved into a container by descriptor never
// passes the place where the kernel locks flags. Without the detour its root
// makes it writable, with it nobody does.
func TestLockedClones(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	requireFeature(t, MappableAt(workDir(t)))
	dir := workDir(t)
	m := Contiguous(300000, 65536)
	write(t, dir+"/src/file", "")
	tree, err := CloneTree(-1, dir+"/src", CloneOptions{
		Userns: userns(t, m), SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE,
	})
	check(t, err)
	mkdir(t, dir+"/ro")
	attach(t, tree, dir+"/ro")
	mount(t, "tmpfs", dir+"/scratch", "mode=0777")
	before := mountLines(t, dir)
	locked, err := LockedClones([]string{dir + "/ro"})
	check(t, err)
	defer shut(t, locked[0])
	plain, err := CloneTree(-1, dir+"/ro", CloneOptions{})
	check(t, err)
	defer shut(t, plain)
	if after := mountLines(t, dir); after != before {
		t.Errorf("mounts left:\n%s", after)
	}
	cmd := helper(t, m, "receive", dir+"/scratch")
	cmd.ExtraFiles = []*os.File{locked[0], plain}
	run(t, cmd)
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

// TestAs: host root cannot create in a container's overlay, the container's root
// acting for it can.
func TestAs(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	requireFeature(t, OverlayBy(MethodPrivate, workDir(t)))
	dir := workDir(t)
	o := stack(t, dir, 2)
	m := Contiguous(300000, 65536)
	attach(t, build(t, o, userns(t, m), m, MethodAuto), dir+"/rootfs")
	if err := os.Mkdir(dir+"/rootfs/host", 0o755); !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("host root: %v", err)
	}
	root, _ := m.Root()
	check(t, As(root, func() error { return os.Mkdir(dir+"/rootfs/container", 0o755) }))
	wantOwner(t, o.Upper+"/container", "0:0")
	if err := As(root, func() error { return os.ErrExist }); !errors.Is(err, os.ErrExist) {
		t.Errorf("error %v", err)
	}
}
