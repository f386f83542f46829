// SPDX-License-Identifier: Apache-2.0

package exhausted

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Main(m, programs)) }

// programs are what tests run in processes of their own, by name.
var programs = map[string]func(args []string) error{
	"exhaust": exhaust,
}

// TestExplain: where a limit is reached it is named, and where none is, an
// error stays what it was. The limit is that of a user namespace of the test's own.
func TestExplain(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	full := &os.PathError{Op: "write", Path: "/x", Err: unix.ENOSPC}
	for _, err := range []error{nil, io.EOF, full} {
		if got := Explain(err); !errors.Is(got, err) || err != nil && got.Error() != err.Error() {
			t.Errorf("%v became %v", err, got)
		}
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), testmounts.Env("exhaust"))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const want = "a limit of the host is reached: raise user.max_mnt_namespaces, user.max_net_namespaces (sysctl): unshare: No space left on device"
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func exhaust([]string) error {
	for _, name := range []string{"max_mnt_namespaces", "max_net_namespaces"} {
		if err := os.WriteFile("/proc/sys/user/"+name, []byte("0"), 0); err != nil {
			return err
		}
	}
	// As a runtime written in C says it.
	_, err := fmt.Println(Explain(errors.New("unshare: No space left on device")))
	return err
}
