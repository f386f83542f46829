// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// The machines of these tests run one after the other: each keeps a processor
// busy.

// requireMachine declares the requirement to run machines: tools, and either a
// network or a cache that has everything.
func requireMachine(t *testing.T, kernels ...Kernel) {
	t.Helper()
	rig.Require(t, rig.Root, rig.Command("apt-get"), rig.Command("mkfs.ext4"), rig.Command("go"))
	missing := ""
	if _, err := os.Stat("/run/vm/guest"); err == nil {
		missing = "this is a virtual machine itself"
	}
	for _, k := range append(kernels, Linux612) {
		if missing != "" {
			break
		}
		if _, err := Prepare(t.Context(), k); err != nil {
			missing = err.Error()
		}
	}
	switch {
	case missing == "":
	case rig.NoSkip():
		t.Fatalf("needs qemu: %s (ISOLATE_NO_SKIP is set)", missing)
	default:
		t.Skipf("needs qemu: %s", missing)
	}
}

// outcome is what a run has left.
type outcome struct {
	code           int
	err            error
	stdout, stderr string
}

// run runs a shell script in a machine; change changes what is not ordinary.
func run(t *testing.T, script string, change func(*Config)) outcome {
	t.Helper()
	var stdout, stderr, console bytes.Buffer
	c := Config{
		Kernel: Linux612, Cgroup: CgroupV2, Init: InitNone, CPUs: 1, Memory: "2G", Timeout: 5 * time.Minute,
		Argv: []string{"sh", "-c", script}, Env: append(os.Environ(), "GREETING=hello world"), Dir: t.TempDir(),
		Stdout: &stdout, Stderr: &stderr, Console: &console,
	}
	if change != nil {
		change(&c)
	}
	start := time.Now()
	code, err := Run(t.Context(), c)
	t.Logf("%s, cgroup %s, init %s: %.1f s", c.Kernel, c.Cgroup, c.Init, time.Since(start).Seconds())
	if left := children(t, os.Getpid()); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
	return outcome{code, err, stdout.String(), stderr.String()}
}

// children lists the emulators that a process has started.
func children(t *testing.T, parent int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // It has ended meanwhile.
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil && len(fields) > 1 && fields[1] == fmt.Sprint(parent) && bytes.Contains(command, []byte("qemu-system")) {
			found = append(found, filepath.Base(filepath.Dir(path)))
		}
	}
	return found
}

func TestResultArrivesWhole(t *testing.T) {
	requireMachine(t)
	const lines = 20000
	got := run(t, fmt.Sprintf(`
		i=0
		while [ $i -lt %d ]; do echo "line $i"; echo "error $i" >&2; i=$((i+1)); done
		echo "$GREETING from $PWD" > /dev/stderr
		exit 7`, lines), nil)
	if got.err != nil || got.code != 7 {
		t.Fatalf("got code %d, error %v, want code 7", got.code, got.err)
	}
	var stdout, stderr strings.Builder
	for i := range lines {
		fmt.Fprintf(&stdout, "line %d\n", i)
		fmt.Fprintf(&stderr, "error %d\n", i)
	}
	if got.stdout != stdout.String() {
		t.Errorf("stdout has %d bytes, want %d", len(got.stdout), stdout.Len())
	}
	rest, found := strings.CutPrefix(got.stderr, stderr.String())
	if !found || !strings.HasPrefix(rest, "hello world from "+os.TempDir()) {
		t.Errorf("stderr has %d bytes, and after %d of them %q", len(got.stderr), stderr.Len(), rest)
	}
}

func TestCodesOfCommandsThatDoNotExit(t *testing.T) {
	requireMachine(t)
	for _, test := range []struct {
		name string
		argv []string
		want int
	}{
		{"killed", []string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		{"not there", []string{"no-such-command"}, 127},
		{"not executable", []string{"/etc/passwd"}, 126},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := run(t, "", func(c *Config) { c.Argv = test.argv })
			if got.err != nil || got.code != test.want {
				t.Errorf("got code %d, error %v, want code %d; stderr %q", got.code, got.err, test.want, got.stderr)
			}
		})
	}
}

func TestSystemInside(t *testing.T) {
	requireMachine(t)
	share := t.TempDir()
	witness := filepath.Join(t.TempDir(), "witness")
	if err := os.WriteFile(witness, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run(t, `
		set -e
		uname -r
		cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control
		mkdir /sys/fs/cgroup/a && echo 64M > /sys/fs/cgroup/a/memory.max && rmdir /sys/fs/cgroup/a
		stat -f -c %T "$TMPDIR" /var/lib/containerd /var/lib/docker
		cat /sys/class/net/lo/flags
		echo $(stat -c %a /dev/fuse /dev/net/tun)
		test -c /dev/fuse && test -c /dev/net/tun && test -c /dev/loop-control
		for m in bridge veth nf_tables nft_chain_nat iptable_nat iptable_filter ip6table_nat xt_MASQUERADE \
			xt_addrtype xt_conntrack br_netfilter tun fuse overlay vxlan ip_vs; do modprobe $m; done
		mkdir -p /vm/o/l /vm/o/u /vm/o/w /vm/o/m
		mount -t overlay -o lowerdir=/vm/o/l,upperdir=/vm/o/u,workdir=/vm/o/w overlay /vm/o/m
		unshare -n sh -c 'ip link add dummy0 type dummy'
		lsmod | grep -q ^dummy
		cat "`+witness+`"
		echo guest > "`+witness+`"
		echo from the guest > "`+share+`/file"
		id -u
		`, func(c *Config) { c.Shares = []string{share} })
	if got.err != nil || got.code != 0 {
		t.Fatalf("got code %d, error %v, stdout %q, stderr %q", got.code, got.err, got.stdout, got.stderr)
	}
	lines := strings.Split(got.stdout, "\n")
	if !strings.HasPrefix(lines[0], "6.12.") {
		t.Errorf("kernel is %q", lines[0])
	}
	for _, line := range lines[1:3] {
		for _, controller := range []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"} {
			if !slices.Contains(strings.Fields(line), controller) {
				t.Errorf("controller %q is missing in %q", controller, line)
			}
		}
	}
	if want := strings.Repeat("ext2/ext3\n", 3) + "0x9\n666 666\nhost0\n"; strings.Join(lines[3:], "\n") != want {
		t.Errorf("got %q, want %q", strings.Join(lines[3:], "\n"), want)
	}
	if text, err := os.ReadFile(witness); err != nil || string(text) != "host" {
		t.Errorf("the guest has changed a file of the host: %q %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(share, "file")); err != nil || string(text) != "from the guest\n" {
		t.Errorf("shared file holds %q, %v", text, err)
	}
}

func TestSystemd(t *testing.T) {
	requireMachine(t)
	got := run(t, `
		systemctl is-system-running --wait
		cat /proc/1/comm /proc/self/cgroup
		systemd-run -q --pipe -p MemoryMax=64M sh -c 'cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max'
		exit 3`, func(c *Config) { c.Init = InitSystemd })
	if got.err != nil || got.code != 3 {
		t.Fatalf("got code %d, error %v, stderr %q", got.code, got.err, got.stderr)
	}
	if want := "running\nsystemd\n0::/system.slice/vm-job.service\n67108864\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
}

func TestCgroupV1(t *testing.T) {
	requireMachine(t, Linux61)
	for _, test := range []struct {
		init Init
		want string
	}{
		{InitNone, "memory:/\n"},
		{InitSystemd, "memory:/system.slice/vm-job.service\n"},
	} {
		t.Run(string(test.init), func(t *testing.T) {
			got := run(t, `
				set -e
				mkdir /sys/fs/cgroup/memory/a
				echo 64M > /sys/fs/cgroup/memory/a/memory.limit_in_bytes
				uname -r
				grep cgroup2 /proc/mounts || :
				grep -o memory:.* /proc/self/cgroup`, func(c *Config) { c.Kernel, c.Cgroup, c.Init = Linux61, CgroupV1, test.init })
			release, rest, _ := strings.Cut(got.stdout, "\n")
			if got.err != nil || got.code != 0 || !strings.HasPrefix(release, "6.1.") || rest != test.want {
				t.Errorf("got code %d, error %v, stdout %q, stderr %q", got.code, got.err, got.stdout, got.stderr)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	requireMachine(t)
	start := time.Now()
	// It does not end by the signal that it gets first.
	got := run(t, "trap '' QUIT; echo runs; sleep 1000", func(c *Config) { c.Timeout = 15 * time.Second })
	if !errors.Is(got.err, errTimeout) {
		t.Errorf("got error %v, want %v", got.err, errTimeout)
	}
	if got.stdout != "runs\n" {
		t.Errorf("stdout is %q", got.stdout)
	}
	if took := time.Since(start); took > 15*time.Second+2*signalGrace {
		t.Errorf("took %s", took)
	}
}

func TestDeath(t *testing.T) {
	requireMachine(t)
	got := run(t, "echo last words; sleep 1; echo c > /proc/sysrq-trigger; sleep 1000", nil)
	// The end of the trace: how much comes before it is chance.
	if !errors.Is(got.err, errDied) || !strings.Contains(got.err.Error(), "entry_SYSCALL_64") {
		t.Errorf("got error %v, want %v with the console", got.err, errDied)
	}
	if got.stdout != "last words\n" {
		t.Errorf("stdout is %q", got.stdout)
	}
}

// signalWriter sends a signal when something is written.
type signalWriter struct {
	bytes.Buffer
	signals chan os.Signal
}

func (w *signalWriter) Write(p []byte) (int, error) {
	if w.Len() == 0 {
		w.signals <- unix.SIGTERM
	}
	return w.Buffer.Write(p)
}

func TestSignalReachesCommand(t *testing.T) {
	requireMachine(t)
	out := &signalWriter{signals: make(chan os.Signal, 1)}
	got := run(t, "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done", func(c *Config) {
		c.Stdout, c.Signals = out, out.signals
	})
	if got.err != nil || got.code != 9 || out.String() != "ready\ncaught\n" {
		t.Errorf("got code %d, error %v, stdout %q", got.code, got.err, out.String())
	}
}

// TestProgram runs the command that others run: its codes, its death, and go
// test by it.
func TestProgram(t *testing.T) {
	requireMachine(t)
	program := filepath.Join(t.TempDir(), "vmrun")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/vmrun")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("codes", func(t *testing.T) {
		for want, arguments := range map[int][]string{
			5:           {"--", "sh", "-c", "exit 5"},
			exitUsage:   {"--kernel", "none"},
			exitTimeout: {"--timeout", "0.1", "--", "true"},
			exitDied:    {"--append", "rdinit=/nowhere", "--", "true"},
		} {
			err := exec.CommandContext(t.Context(), program, arguments...).Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != want {
				t.Errorf("%q: got %v, want code %d", arguments, err, want)
			}
		}
	})
	t.Run("go test", func(t *testing.T) {
		command := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-exec", program+" --kernel 6.12 --", "./testdata/inside")
		out, err := command.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("release=6.12.")) || !bytes.Contains(out, []byte("--- PASS: TestRootOfAnotherKernel")) {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("killed", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, program, "--", "sh", "-c", "echo runs; sleep 1000")
		stdout, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdout.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		emulators := children(t, command.Process.Pid)
		if len(emulators) != 1 {
			t.Errorf("emulators are %q, want one", emulators)
		}
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := command.Wait(); err == nil {
			t.Error("it exited with success after it was killed")
		}
		for _, pid := range emulators {
			for alive(pid) && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			if alive(pid) {
				t.Errorf("emulator %s has outlived its runner", pid)
			}
		}
	})
}

// alive tells whether a process runs. One that nobody waits for does not.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}
