// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// holderEnv makes the test binary a process that takes leases, prints their
// first ids and holds them until it is killed or its input ends: "dir count
// start count-of-slots".
const holderEnv = "ISOLATE_TEST_POOL_HOLDER"

func TestMain(m *testing.M) {
	if args := os.Getenv(hostileEnv); args != "" {
		runtime.LockOSThread() // to the first thread, on which TestMain runs
		if err := runHostile(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if args := os.Getenv(holderEnv); args != "" {
		if err := hold(args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func hold(args string) error {
	var dir, cgroup string
	var count, init int
	var span idmap.Span
	if _, err := fmt.Sscan(args, &dir, &count, &span.First, &span.Size, &init, &cgroup); err != nil {
		return err
	}
	p, err := Open(dir, []idmap.Span{span})
	if err != nil {
		return err
	}
	owner := Owner{Namespace: "test", ID: strconv.Itoa(os.Getpid())}
	if cgroup != "-" {
		owner.Cgroups = []string{cgroup}
	}
	for range count {
		l, err := p.AcquirePreferred(context.Background(), owner, slotSize, 0)
		if err != nil {
			return err
		}
		defer l.Release(context.Background()) //nolint:errcheck // only to keep it reachable
		if init != 0 {
			if err := l.Bound(init); err != nil {
				return err
			}
		}
		fmt.Println(l.First)
	}
	fmt.Println("done")
	os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // ends with the parent
	return nil
}

// holder is a process that holds leases.
type holder struct {
	cmd  *exec.Cmd
	ids  []idmap.HostID
	stop func() // kill -9, and wait
}

func startHolder(t *testing.T, dir string, count int, span idmap.Span, init int, cgroup string) (*holder, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holderEnv+"="+fmt.Sprint(dir, " ", count, " ", uint32(span.First), " ", span.Size, " ", init, " ", cgroup))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &holder{cmd: cmd}
	h.stop = sync.OnceFunc(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
		stdin.Close()
	})
	t.Cleanup(h.stop)
	for s := bufio.NewScanner(stdout); s.Scan(); {
		if s.Text() == "done" {
			return h, nil
		}
		id, err := strconv.ParseUint(s.Text(), 10, 32)
		if err != nil {
			return nil, err
		}
		h.ids = append(h.ids, idmap.HostID(id))
	}
	return nil, errors.New("holder ended early")
}
