// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const restarted = "has to be restarted"

// TestInstall goes through the life of an installation: looking, installing,
// restarting containerd, again, a new version under a running container, removing.
func TestInstall(t *testing.T) {
	// A directory that is there already is not isolate's to remove.
	if err := os.Mkdir("/var/lib/isolate", 0o755); err == nil {
		t.Cleanup(func() { os.Remove("/var/lib/isolate") })
	}
	h := hostOf(t, peer.Containerd24, imports(dropIns+"\n"))
	before := h.files(t)
	said(t, h.install(t, "--dry-run"), "would write "+binDir+"/containerd-shim-isolate-v1", "would write /etc/containerd/conf.d/isolate.toml", "would need containerd restarted")
	same(t, before, h.files(t))

	said(t, h.install(t), "wrote "+binDir+"/isolatectl", "wrote /etc/containerd/conf.d/isolate.toml", restarted)
	if known, _ := h.handler(t); known {
		t.Error("containerd knows the handler before it was restarted")
	}
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if known, userns := h.handler(t); !known || !userns {
		t.Errorf("handler known: %t, with user namespaces: %t", known, userns)
	}
	// Again: nothing changes, and nothing is restarted, even if it may be.
	installed, pid := h.files(t), h.Pid()
	said(t, h.install(t, "--restart", "signal"), "isolatectl is in place", "isolate.toml is in place", "containerd knows the handler")
	same(t, installed, h.files(t))
	if h.Pid() != pid {
		t.Error("containerd was restarted without need")
	}

	// A new version, while the old shim runs. Bytes after its end do not matter to
	// a program.
	shim := filepath.Join(binDir, "containerd-shim-isolate-v1")
	reference := h.demo(t)
	h.Ctr(t.Context(), "run", "-d", "--null-io", "--runtime", shim, reference, "old", "sleep", "86400").Must(t)
	newer := t.TempDir()
	for _, name := range []string{"isolatectl", "containerd-shim-isolate-v1"} {
		text, err := os.ReadFile(filepath.Join(h.programs, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(newer, name), append(text, "newer"...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	said(t, h.install(t, "--from", newer), "wrote "+shim, "isolate.toml is in place", "containerd knows the handler")
	if got := h.Output(t, "tasks exec", "--exec-id", "x", "old", "id", "-u").Must(t); got != "0" {
		t.Errorf("exec by the old shim printed %q", got)
	}

	refused(t, h.ctl(t, "uninstall"), "still there: default/old", "--force")
	if _, userns := h.handler(t); !userns {
		t.Error("a refused uninstall removed the handler")
	}
	h.Ctr(t.Context(), "tasks", "rm", "--force", "old").Must(t)
	h.Ctr(t.Context(), "containers", "rm", "old").Must(t)
	if left, err := os.ReadDir("/run/isolate"); err == nil {
		for _, e := range left {
			if !strings.HasPrefix(e.Name(), ".") {
				t.Errorf("the new shim did not clean up after the old one: %s", e.Name())
			}
		}
	}

	h.supervised(t)
	said(t, h.ctl(t, "uninstall", "--restart", "signal"), "removed /etc/containerd/conf.d/isolate.toml", "does not know the handler", "removed "+shim)
	if known, _ := h.handler(t); known {
		t.Error("containerd still knows the handler")
	}
	same(t, before, h.files(t))
	said(t, h.ctl(t, "uninstall"), "nothing to undo")
}

// TestRestart has install restart containerd, and itself run in the host's root
// directory, as in a pod.
func TestRestart(t *testing.T) {
	h := hostOf(t, peer.Containerd22, imports(dropIns+"\n"))
	h.supervised(t)
	pid := h.Pid()
	// A bind mount of / is what a pod sees, below which is all that a host has.
	host := filepath.Join(t.TempDir(), "host")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	in := func(args ...string) rig.Result {
		return rig.Exec(t.Context(), append([]string{
			"unshare", "--mount", "sh", "-c", `mount --rbind / "$0" && exec "$@"`, host, filepath.Join(h.programs, "isolatectl"),
		}, args...)...)
	}
	said(t, in("install", "--root", host, "--address", h.Address, "--bin-dir", binDir, "--restart", "signal"), "restarting containerd", "knows the handler isolate, with user namespaces")
	if h.Pid() == pid {
		t.Error("containerd was not restarted")
	}
	if _, userns := h.handler(t); !userns {
		t.Error("no handler")
	}
	said(t, in("uninstall", "--root", host, "--address", h.Address, "--restart", "signal"), "does not know the handler")
}

// TestRestartBySystemdThatIsNotThere says so, and the next attempt goes on.
func TestRestartBySystemdThatIsNotThere(t *testing.T) {
	h := hostOf(t, peer.Containerd24, imports(dropIns+"\n"))
	refused(t, h.install(t, "--restart", "systemd"), "by systemd", "connect to systemd")
	h.supervised(t)
	said(t, h.install(t, "--restart", "signal"), "is in place", "knows the handler")
	said(t, h.ctl(t, "uninstall", "--restart", "signal"), "does not know")
}

// TestMainFile installs beside main configuration files of all kinds, and takes
// away just what it has added.
func TestMainFile(t *testing.T) {
	for _, test := range []struct {
		name, imports string
		says          string
	}{
		{"none", "", "would add a line"},
		{"empty", "  imports = []   # of version 2.0\n", "would change a line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := hostOf(t, peer.Containerd24, imports(test.imports))
			h.supervised(t)
			said(t, h.install(t, "--dry-run"), test.says)
			said(t, h.install(t, "--restart", "signal"), "wrote "+h.File, "knows the handler")
			// Somebody goes on to use the directory: the import stays then.
			other := "/etc/containerd/conf.d/other.toml"
			if err := os.WriteFile(other, []byte("version = 3\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			said(t, h.ctl(t, "uninstall", "--restart", "signal"), "goes on to import "+other)
			if text, err := os.ReadFile(h.File); err != nil || !strings.Contains(string(text), "conf.d") {
				t.Errorf("%s has lost a line that is in use: %q, %v", h.File, text, err)
			}
			if err := os.RemoveAll(filepath.Dir(other)); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, line := range []string{"", "  imports = []   # of version 2.0\n"} {
		t.Run(fmt.Sprintf("undone %q", line), func(t *testing.T) {
			h := hostOf(t, peer.Containerd24, imports(line))
			h.supervised(t)
			before := h.files(t)
			said(t, h.install(t, "--restart", "signal"), "knows the handler")
			said(t, h.ctl(t, "uninstall", "--restart", "signal"), "took the line", "does not know")
			same(t, before, h.files(t))
		})
	}
	t.Run("no file", func(t *testing.T) {
		rig.Require(t, rig.Root)
		h := hostWith(t, rig.Config{CRI: true, NoFile: true})
		h.supervised(t)
		before := h.files(t)
		said(t, h.install(t, "--restart", "signal"), "wrote /etc/containerd/config.toml", "knows the handler")
		said(t, h.install(t, "--restart", "signal"), "isolate.toml is in place")
		said(t, h.ctl(t, "uninstall", "--restart", "signal"), "removed /etc/containerd/config.toml", "does not know")
		same(t, before, h.files(t))
	})
	t.Run("others", func(t *testing.T) {
		h := hostOf(t, peer.Containerd24, nil) // imports a file of its own
		before := h.files(t)
		refused(t, h.install(t), h.File, "imports other files already", `add "/etc/containerd/conf.d/*.toml" to its imports`, `runtime_type = "io.containerd.isolate.v1"`)
		same(t, before, h.files(t))
	})
	t.Run("by hand", func(t *testing.T) {
		h := hostOf(t, peer.Containerd24, func(main string) string {
			return main + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v1'\nruntime_path = '" + binDir + "/containerd-shim-isolate-v1'\n"
		})
		before := h.files(t)
		said(t, h.install(t), "wrote "+binDir, restarted)
		if err := h.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		said(t, h.install(t), "knows the handler")
		said(t, h.ctl(t, "uninstall"), "removed "+binDir)
		same(t, before, h.files(t))
	})
}

// TestContainerdThatDropsSettings is about containerd 1.7, in which an imported
// file replaces all settings of the plugins that it mentions.
func TestContainerdThatDropsSettings(t *testing.T) {
	h := hostOf(t, peer.Containerd17, imports(dropIns+"\n"))
	before := h.files(t)
	refused(t, h.install(t), "drops other settings", "add these lines to "+h.File, `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.isolate]`)
	after := h.files(t)
	for path := range after {
		if strings.HasPrefix(path, "/etc/containerd") && strings.HasSuffix(path, ".toml") {
			t.Errorf("left %s", path)
		}
	}
	said(t, h.ctl(t, "uninstall"), "removed "+binDir)
	same(t, before, h.files(t))
}

// TestRefusals are calls that make no sense.
func TestRefusals(t *testing.T) {
	h := hostOf(t, peer.Containerd24, imports(dropIns+"\n"))
	nowhere := rig.Exec(t.Context(), filepath.Join(h.programs, "isolatectl"), "install", "--bin-dir", binDir)
	refused(t, nowhere, "no containerd serves /run/containerd/containerd.sock", "one serves "+h.Address, "--address")
	refused(t, h.install(t, "--restart", "hope"), "--restart")
	refused(t, h.install(t, "--node", "n1"), "not in a pod", "kubectl label node")
	refused(t, h.install(t, "--node-label", "ready"), "KEY=VALUE")
	refused(t, h.install(t, "--from", t.TempDir()), "containerd-shim-isolate-v1", "--from")
	refused(t, h.install(t, "extra"), "takes no argument")

	// A file that somebody has changed is not removed without being asked.
	said(t, h.install(t), restarted)
	shim := filepath.Join(binDir, "containerd-shim-isolate-v1")
	if err := os.WriteFile(shim, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused(t, h.ctl(t, "uninstall"), shim+" is not as it was installed", "--force")
	said(t, h.ctl(t, "uninstall", "--force"), "removed "+shim)
}

// TestProgramsOnly is for hosts with Docker or ctr alone.
func TestProgramsOnly(t *testing.T) {
	h := hostOf(t, peer.Containerd24, imports(dropIns+"\n"))
	before := h.files(t)
	said(t, h.install(t, "--programs-only"), "wrote "+binDir)
	said(t, h.ctl(t, "uninstall"), "removed "+binDir)
	same(t, before, h.files(t))
}
