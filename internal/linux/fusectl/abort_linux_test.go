// SPDX-License-Identifier: Apache-2.0

package fusectl

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stalled mounts, nowhere, a FUSE file system whose server takes each request and
// never answers.
func stalled(t testing.TB, owner int) (root int) {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	context, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"fd": strconv.Itoa(device), "rootmode": "40000", "user_id": strconv.Itoa(owner), "group_id": "0",
	} {
		if err := unix.FsconfigSetString(context, key, value); err != nil {
			t.Fatal(key, err)
		}
	}
	// Else the kernel refuses everybody but the owner.
	if err := unix.FsconfigSetFlag(context, "allow_other"); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(context); err != nil {
		t.Fatal(err)
	}
	if root, err = unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(context)
	t.Cleanup(func() { unix.Close(root); unix.Close(device) })
	return root
}

// ask has the server asked, and returns its answer.
func ask(root int) chan error {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- unix.Statx(root, "file", unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}()
	return answer
}

func none(Connection) bool { return false }

// waits waits until the connection of an owner has a request without an answer.
func waits(t testing.TB, owner uint32) Connection {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var found *Connection
		_, err := Abort(func(c Connection) bool {
			if c.Owner == owner && c.Waiting > 0 {
				found = &c
			}
			return false
		})
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			return *found
		}
	}
	t.Fatalf("no connection of user %d", owner)
	return Connection{}
}

// Only the end of the connection ends the wait for a server that never answers,
// and nobody waits less or more for another one.
func TestAbortEndsTheChosenConnectionOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	const mine, others = 1879048193, 1879113729
	victim, neighbour := ask(stalled(t, mine)), ask(stalled(t, others))
	want := waits(t, mine)
	waits(t, others)
	if aborted, err := Abort(none); err != nil || len(aborted) != 0 {
		t.Fatal(aborted, err)
	}
	aborted, err := Abort(func(c Connection) bool { return c.Owner == mine })
	if err != nil || len(aborted) != 1 || aborted[0].Device != want.Device {
		t.Fatalf("%v, %v; want %v", aborted, err, want)
	}
	select {
	case err := <-victim:
		if !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.ENOTCONN) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits")
	}
	select {
	case err := <-neighbour:
		t.Error("the other one does not wait any more:", err)
	case <-time.After(50 * time.Millisecond):
	}
}
