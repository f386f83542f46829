// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExecReachesKeysOfContainerd: a program that crun executed in a container
// had containerd's session keyring.
func TestExecReachesKeysOfContainerd(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // for good: the thread ends with the test
	session := func() int {
		id, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_SESSION_KEYRING, 1, 0, 0)
		if errors.Is(err, unix.ENOSYS) {
			t.Skip("needs a kernel with CONFIG_KEYS")
		}
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := session()
	if err := newSession(); err != nil {
		t.Fatal(err)
	}
	if after := session(); after == before {
		t.Errorf("the session keyring is still %x", after)
	}
	// What is forked has the new one, which lists as /proc/keys shows it.
	keys, err := exec.Command("cat", "/proc/keys").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(keys), " keyring   _ses: empty") {
		t.Errorf("a child has the keys\n%s", keys)
	}
}
