// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// childName is argv[0] of the process that tries a lock under a profile.
const childName = "isolate-check-lock"

// What the child's exit status says, apart from 0.
const (
	exitDenied  = 10 // the lock is denied
	exitFailed  = 11 // something else went wrong, which stderr names
	exitProfile = 12 // the profile was not entered
)

// childLimit bounds the child, which takes milliseconds.
const childLimit = 10 * time.Second

// errLockDenied means that the lock was denied, under the profile.
var errLockDenied = errors.New("permission denied")

// MaybeChild must be called first in main by every program that uses this package:
// if the process is a child that tries a lock, it does its work and does not
// return.
func MaybeChild() {
	if len(os.Args) != 3 || os.Args[0] != childName {
		return
	}
	code, err := lockChild(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprint(os.Stderr, err)
	}
	os.Exit(code)
}

// runUnder executes this program under a profile, to make and lock a file there.
//
// As OCI runtimes do, a thread sets the profile that its next execve(2) begins under.
// The thread does nothing else and ends with that. The profile need not allow to read
// the program: the kernel maps it with the rights of the profile before, and the program
// has no libraries.
func runUnder(ctx context.Context, profile, file string) error {
	ctx, cancel := context.WithTimeout(ctx, childLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{childName, profile, file}
	cmd.Env = []string{}
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said // by a pipe, which no profile takes away
	result := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends, and with it what it asked for.
		runtime.LockOSThread()
		if err := changeOnExec(profile); err != nil {
			result <- err
			return
		}
		result <- cmd.Run()
	}()
	err := <-result
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch exit.ExitCode() {
	case exitDenied:
		return errLockDenied
	case exitFailed, exitProfile:
		return errors.New(said.String())
	}
	return fmt.Errorf("child: %w: %s", err, said.String())
}

// changeOnExec sets the profile of the next program of this thread.
func changeOnExec(profile string) error {
	// The first one exists where other modules use the second one too (Linux 5.8).
	var err error
	for _, file := range []string{"/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"} {
		err = os.WriteFile(file, []byte("exec "+profile), 0)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("change to AppArmor profile %s: %w", profile, err)
	}
	return nil
}

// lockChild makes a file and locks it.
func lockChild(profile, file string) (code int, err error) {
	label, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return exitProfile, err
	}
	if name, _, _ := strings.Cut(string(label), " ("); name != profile {
		return exitProfile, fmt.Errorf("under AppArmor profile %s in the place of %s", name, profile)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return exitFailed, err
	}
	defer f.Close()
	err = flock.Exclusive(f)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return exitDenied, err
	case err != nil:
		return exitFailed, err
	}
	return 0, nil
}
