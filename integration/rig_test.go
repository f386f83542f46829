// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestRigRuntimes proves the rig itself, without the shim under test: upstream
// containerds run containers in it with upstream runtimes, and leave nothing.
func TestRigRuntimes(t *testing.T) {
	for _, test := range []struct {
		containerd, runtime peer.Name
	}{
		{peer.Containerd24, peer.Runc15},
		{peer.Containerd22, peer.Runc15},
		{peer.Containerd24, peer.Crun121},
		{peer.Containerd17, peer.Runc11},
	} {
		t.Run(string(test.containerd)+"/"+string(test.runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			node := rig.Containerd(t, rig.Config{Containerd: test.containerd, Runc: test.runtime})
			reference := node.MustImport(t, image.Demo)
			before := rig.MustSnapshot(t)
			const script = "id -u; stat -c %u:%g /home/user; stat -c %a /usr/local/bin/suid-id;" +
				"getcap /usr/local/bin/capable; cat /srv/data/hardlink; ls /etc/issue.net; sleep 0.5" // it ends after ctr has opened its pipes, see rig.Node.Output
			got := node.Ctr(t.Context(), "run", "--rm", "--runtime", "io.containerd.runc.v2", reference, "a", "sh", "-c", script)
			want := "0\n1000:1000\n4755\n/usr/local/bin/capable cap_net_bind_service,cap_net_raw=ep\na file of the second layer\n"
			if got.Stdout != want || !strings.Contains(got.Stderr, "No such file") {
				t.Errorf("ran with status %d, stdout %q, want %q, stderr %q", got.Code, got.Stdout, want, got.Stderr)
			}
			rig.MustMatch(t, before)
		})
	}
}

// TestRigImageLayers proves that an image of 60 layers has them.
func TestRigImageLayers(t *testing.T) {
	rig.Require(t, rig.Root)
	node := rig.Containerd(t, rig.Config{})
	reference := node.MustImport(t, image.Demo60)
	got := node.Output(t, "run", "--rm", reference, "a", "sh", "-c", "cat /srv/layers/58; ls /srv/layers | wc -l").Must(t)
	if want := "/srv/layers/5858"; got != want {
		t.Errorf("layers show %q, want %q", got, want)
	}
}

// TestRigRestart proves that containers outlive containerd, as they do under a
// service manager.
func TestRigRestart(t *testing.T) {
	rig.Require(t, rig.Root)
	node := rig.Containerd(t, rig.Config{})
	reference := node.MustImport(t, image.Demo)
	before := rig.MustSnapshot(t)
	node.Ctr(t.Context(), "run", "-d", reference, "a", "sleep", "1000").Must(t)
	for name, end := range map[string]func() error{"stop": node.Stop, "kill": node.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := node.Start(t.Context()); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		if got := node.Output(t, "tasks exec", "--exec-id", name, "a", "echo", "here").Must(t); got != "here" {
			t.Errorf("exec after %s printed %q", name, got)
		}
	}
	node.Ctr(t.Context(), "tasks", "rm", "--force", "a").Must(t)
	node.Ctr(t.Context(), "containers", "rm", "a").Must(t)
	rig.MustMatch(t, before)
}

// TestRigCRI proves that the Kubernetes interface comes up, that a test's own
// configuration reaches it, and that a plugin which fails is noticed.
func TestRigCRI(t *testing.T) {
	for containerd, table := range map[peer.Name]string{
		peer.Containerd24: "io.containerd.cri.v1.runtime",
		peer.Containerd22: "io.containerd.cri.v1.runtime",
	} {
		t.Run(string(containerd), func(t *testing.T) {
			rig.Require(t, rig.Root)
			runtimes := "[plugins.\"" + table + "\".containerd]\ndefault_runtime_name = \"%s\"\n" +
				"[plugins.\"" + table + "\".containerd.runtimes.mine]\nruntime_type = \"io.containerd.runc.v2\"\n"
			rig.Containerd(t, rig.Config{Containerd: containerd, CRI: true, TOML: fmt.Sprintf(runtimes, "mine")})
			_, err := rig.StartContainerd(t.Context(), rig.Config{Containerd: containerd, CRI: true, TOML: fmt.Sprintf(runtimes, "absent")})
			if err == nil || !strings.Contains(err.Error(), "plugin failed") {
				t.Errorf("start with an absent runtime: %v, want a failed plugin", err)
			}
		})
	}
	t.Run(string(peer.Containerd17), func(t *testing.T) {
		rig.Require(t, rig.Root)
		rig.Containerd(t, rig.Config{Containerd: peer.Containerd17, CRI: true})
	})
}

// TestRigSnapshot proves that what is left behind is seen.
func TestRigSnapshot(t *testing.T) {
	rig.Require(t, rig.Root)
	node := rig.Containerd(t, rig.Config{})
	before := rig.MustSnapshot(t)

	groups, err := filepath.Glob("/sys/fs/cgroup/memory")
	if err != nil || len(groups) == 0 {
		groups = []string{"/sys/fs/cgroup"}
	}
	group := groups[0] + "/default/left"
	bundle := node.State + "/io.containerd.runtime.v2.task/default/left"
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/left", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("left", "/run/left", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), "sleep", "12345")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	// The command line is that of this program until the child has called exec.
	rig.Eventually(t, "exec", func() bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.Process.Pid))
		return err == nil && string(line) == "sleep\x0012345\x00"
	})
	got := before.Diff(rig.MustSnapshot(t))
	want := []string{
		"+1 cgroup " + group, "+1 file " + bundle, "+1 file /run/left",
		"+1 mount tmpfs left on /run/left", "+1 process sleep 12345",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("saw %q, want %q", got, want)
	}

	if err := process.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = process.Wait()
	if err := unix.Unmount("/run/left", 0); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"/run/left", group, bundle} {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
	rig.MustMatch(t, before)
}

// TestRigLxcfsLimits proves that lxcfs finds containers' limits in the rig's
// cgroups.
func TestRigLxcfsLimits(t *testing.T) {
	for _, name := range []peer.Name{peer.Lxcfs5, peer.Lxcfs6} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			lxcfs := rig.LxcfsFor(t, name, "")
			node := rig.Containerd(t, rig.Config{})
			reference := node.MustImport(t, image.Demo)
			before := rig.MustSnapshot(t)
			mount := "type=bind,src=" + lxcfs.Dir + "/proc/meminfo,dst=/proc/meminfo,options=rbind:ro"
			got := node.Output(t, "run", "--rm", "--memory-limit", "268435456", "--mount", mount,
				reference, "a", "head", "-n1", "/proc/meminfo").Must(t)
			if want := "MemTotal:         262144 kB"; got != want {
				t.Errorf("container sees %q, want %q", got, want)
			}
			rig.MustMatch(t, before)
		})
	}
}

// TestRigLxcfs proves that each lxcfs serves files, hangs and dies on demand.
func TestRigLxcfs(t *testing.T) {
	for _, name := range []peer.Name{peer.Lxcfs5, peer.Lxcfs6} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			before := rig.MustSnapshot(t)
			lxcfs, err := rig.StartLxcfs(t.Context(), name, "/run/lxcfs-test")
			if err != nil {
				t.Fatal(err)
			}
			meminfo := lxcfs.Dir + "/proc/meminfo"
			if text, err := os.ReadFile(meminfo); err != nil || !strings.HasPrefix(string(text), "MemTotal:") {
				t.Errorf("meminfo is %q, %v", text, err)
			}
			if err := lxcfs.Stop(); err != nil {
				t.Fatal(err)
			}
			// By a process of its own: signals of the Go runtime would make FUSE
			// interrupt requests out of a read that waits.
			read := make(chan error, 1)
			go func() { read <- rig.Exec(t.Context(), "cat", meminfo).Err() }()
			select {
			case err := <-read:
				t.Fatalf("read from a stopped lxcfs: %v, want it to hang", err)
			case <-time.After(300 * time.Millisecond): // time to answer, which it must not
			}
			if err := lxcfs.Cont(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-read:
				if err != nil {
					t.Errorf("read from a continued lxcfs: %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("a continued lxcfs does not answer")
			}
			if err := lxcfs.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(meminfo); fmt.Sprint(err) != "open "+meminfo+": transport endpoint is not connected" {
				t.Errorf("read from a killed lxcfs: %v", err)
			}
			if err := lxcfs.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(lxcfs.Dir); err != nil {
				t.Error(err)
			}
			rig.MustMatch(t, before)
		})
	}
}
