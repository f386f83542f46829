// SPDX-License-Identifier: Apache-2.0

package member

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// process starts a process that lives until the test ends.
func process(tb testing.TB, attr *syscall.SysProcAttr, command ...string) int {
	tb.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// confined starts one with the ids of a container.
func confined(tb testing.TB, m idmap.Mapping) int {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	maps := func(ranges []idmap.Range) (out []syscall.SysProcIDMap) {
		for _, r := range ranges {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)})
		}
		return out
	}
	return process(tb, &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		UidMappings: maps(m.UIDs), GidMappings: maps(m.GIDs), GidMappingsEnableSetgroups: true,
	}, "sleep", "100")
}

func TestVerify(t *testing.T) {
	t.Parallel()
	pid := confined(t, ids)
	p, err := Verify(pid, Container{Mapping: ids})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Confined(true); err != nil {
		t.Error(err)
	}
	c := p.Container()
	if c.Userns == (ns.ID{}) || c.PIDs == (ns.ID{}) {
		t.Errorf("its namespaces are not known: %+v", c)
	}
	again, err := Verify(pid, c)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	copied, err := p.Dup()
	if err != nil {
		t.Fatal(err)
	}
	if err := copied.Signal(0); err != nil {
		t.Error(err)
	}
	copied.Close()

	// Its twin has the same ids in other namespaces.
	if twin, err := Verify(confined(t, ids), c); !errors.Is(err, ErrForeign) {
		t.Error("a process with the same ids in another user namespace:", twin, err)
	}
	if neighbour, err := Verify(confined(t, idmap.Contiguous(300000, 65536)), Container{Mapping: ids}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "it has the ids 0:300000:65536") {
		t.Error("a process of another container:", neighbour, err)
	}
	host := process(t, nil, "sleep", "100")
	for _, of := range []Container{{Mapping: ids}, c, {Mapping: idmap.Contiguous(0, 1<<32-1)}} {
		if p, err := Verify(host, of); !errors.Is(err, ErrForeign) {
			t.Error("a process of the host:", p, err)
		}
		if p, err := Verify(os.Getpid(), of); !errors.Is(err, ErrForeign) {
			t.Error("this process:", p, err)
		}
	}
}

func TestVerifyEnded(t *testing.T) {
	t.Parallel()
	pid := confined(t, ids)
	p, err := Verify(pid, Container{Mapping: ids})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ended, err := p.Ended(-1); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if p, err := Verify(pid, Container{Mapping: ids}); !errors.Is(err, proc.ErrEnded) {
		t.Error("a zombie:", p, err)
	}
	if p, err := Verify(1<<22, Container{Mapping: ids}); !errors.Is(err, proc.ErrEnded) {
		t.Error("a pid that is nobody's:", p, err)
	}
}

// A runtime that reads another document than isolate makes the container with the
// host's ids, or with others than planned.
func TestConfined(t *testing.T) {
	t.Parallel()
	p, err := Verify(confined(t, idmap.Contiguous(100000, 1000)), Container{Mapping: ids})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Confined(true); !errors.Is(err, ErrUnconfined) || !strings.Contains(err.Error(), "0:100000:1000 instead of 0:100000:65536") {
		t.Error(err)
	}
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	numbers, child, err := parseStatus("Name:\tNSpid: 7\nPPid:\t42\nNSpid:\t70\t8\t1\n", 42)
	if err != nil || !child || len(numbers) != 3 || numbers[0] != 70 || numbers[2] != 1 {
		t.Error(numbers, child, err)
	}
	if numbers, child, err := parseStatus("PPid:\t421\n", 42); err != nil || child || numbers != nil {
		t.Error(numbers, child, err)
	}
	if _, _, err := parseStatus("NSpid:\t70\tx\n", 42); err == nil {
		t.Error("no error")
	}
}

func BenchmarkVerify(b *testing.B) {
	pid := confined(b, ids)
	for b.Loop() {
		p, err := Verify(pid, Container{Mapping: ids, Cgroups: []string{"/sys/fs/cgroup/default/nothing"}})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Confined(true); err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
