// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestHealHeld has somebody hold what connects lxcfs with the kernel, beyond the end of
// lxcfs, and take its requests without an answer: as a child of it, or a thread of it
// that is stuck. Nobody waits for that connection to end.
func TestHealHeld(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	server := rig.LxcfsFor(t, peer.Lxcfs6, dir)
	count := whole(t, peer.Crun121)
	h := on(t, peer.Crun121, 3)
	together := []string{"--annotation", "io.containerd.runc.v2.group=together"}
	all := []container{h.start(t, "a", together...), h.start(t, "b", together...), h.start(t, "c")}
	for _, c := range all {
		until(t, c.pid, count)
	}
	connection := connectionOf(t, server)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	take(t, connection)
	for _, c := range all {
		until(t, c.pid, 0)
		c.sees(t, total, hostTotal(t))
	}
	unmount(t)
	rig.LxcfsFor(t, peer.Lxcfs6, dir)
	for _, c := range all {
		until(t, c.pid, count)
		c.sees(t, total, shown)
		c.remove(t)
	}
}

// TestHealLookedUp has somebody look up a file of lxcfs as that dies, before a shim has
// come to take the file off: the kernel calls it deleted from then on. A shim that looks
// what there is can do so for all.
func TestHealLookedUp(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := on(t, peer.Crun121, 1, patient)
	server := rig.LxcfsFor(t, peer.Lxcfs6, dir)
	c := h.start(t, "a")
	count := len(files(t, c.pid))
	shim := number(t, fmt.Sprintf("/proc/%d/status", c.pid), "PPid:")
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(shim, unix.SIGCONT) //nolint:errcheck // it goes on already
	proc, err := os.OpenRoot(dir + "/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close() //nolint:errcheck // it was only read
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the kernel to call the file deleted", func() bool {
		_, err := proc.Stat("meminfo")
		table, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.pid))
		if readErr != nil {
			t.Fatal(readErr)
		}
		return err != nil && strings.Contains(string(table), " /proc/meminfo//deleted /proc/meminfo ")
	})
	if err := unix.Kill(shim, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, c.pid, 0)
	c.sees(t, total, hostTotal(t))
	unmount(t)
	rig.LxcfsFor(t, peer.Lxcfs6, dir)
	until(t, c.pid, count)
	c.sees(t, total, shown)
	c.remove(t)
}

// connectionOf returns another descriptor of what connects an lxcfs with the kernel.
func connectionOf(t *testing.T, server *rig.Lxcfs) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", server.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", server.Pid(), e.Name()))
		if err != nil || name != "/dev/fuse" {
			continue
		}
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(server.Pid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	t.Fatal("lxcfs has no connection")
	return -1
}

// take takes what is asked by a connection, and answers nothing, until the test is over.
func take(t *testing.T, connection int) {
	t.Helper()
	if err := unix.SetNonblock(connection, true); err != nil { // so that Close ends a read
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(connection), "/dev/fuse")
	var taken sync.WaitGroup
	taken.Go(func() {
		request := make([]byte, 4<<20) // or the kernel refuses
		for {
			if _, err := f.Read(request); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		f.Close()
		taken.Wait()
	})
}
