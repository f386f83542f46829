// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// recorder is an OCI runtime that writes down how it is called.
type recorder struct{ path, calls string }

// record makes a recorder around an OCI runtime. Without systemd there is no
// systemd cgroup driver: the flag is written down and not passed on.
func record(t *testing.T, name peer.Name) recorder {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := recorder{filepath.Join(dir, "runc"), filepath.Join(dir, "calls")}
	script := "#!/bin/sh\necho \"$*\" >> " + r.calls + "\nfor a; do shift; [ \"$a\" = --systemd-cgroup ] || set -- \"$@\" \"$a\"; done\n" +
		"exec " + p.Program(p.Programs()[0]) + " \"$@\"\n"
	if err := testprogram.Write(r.path, script); err != nil {
		t.Fatal(err)
	}
	return r
}

// take returns the calls for containers so far, and forgets them: "create",
// "start" and so on, with "+systemd" if the flag was there.
func (r recorder) take(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.calls)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.calls, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for line := range strings.Lines(string(text)) {
		for _, verb := range []string{"create", "start", "exec", "delete"} {
			if strings.Contains(" "+strings.TrimSpace(line)+" ", " "+verb+" ") {
				if strings.Contains(line, "--systemd-cgroup") {
					verb += "+systemd"
				}
				verbs = append(verbs, verb)
				break
			}
		}
	}
	return strings.Join(verbs, " ")
}

// TestStanzas proves that the runtime which is configured, and no other, does all
// the work, in each way to configure it, for pods with and without an id mapping
// of the caller's. containerd 2.0 lost BinaryName and SystemdCgroup of mapped
// pods (containerd #11169, #11480, #11568).
func TestStanzas(t *testing.T) {
	// CRI's names for cgroups depend on the driver.
	const table, slice = "[" + runtimeTable + "." + handler + "]\n", "test.slice"
	for _, c := range []struct {
		name    string
		stanza  func(shim, runtime string) string
		isolate func(runtime string) string // configuration of isolate
		driver  string                      // what calls end in
		by      peer.Name                   // containerd, the newest by default
	}{
		{
			name:    "own type",
			stanza:  func(string, string) string { return table + "runtime_type = \"" + shimName + "\"\n" },
			isolate: func(runtime string) string { return fmt.Sprintf("runtime.binary = %q\n", runtime) },
		},
		{
			name: "own type, containerd 2.2", by: peer.Containerd22,
			stanza:  func(string, string) string { return table + "runtime_type = \"" + shimName + "\"\n" },
			isolate: func(runtime string) string { return fmt.Sprintf("runtime.binary = %q\n", runtime) },
		},
		{
			name: "type of runc, containerd 2.2", by: peer.Containerd22,
			stanza: func(shim, runtime string) string {
				return fmt.Sprintf("%sruntime_type = %q\nruntime_path = %q\n[%s.%s.options]\nBinaryName = %q\n", table, runcName, shim, runtimeTable, handler, runtime)
			},
		},
		{
			name:   "own type, systemd",
			stanza: func(string, string) string { return table + "runtime_type = \"" + shimName + "\"\n" },
			isolate: func(runtime string) string {
				return fmt.Sprintf("[runtime]\nbinary = %q\nsystemd_cgroup = true\n", runtime)
			},
			driver: "+systemd",
		},
		{
			name: "type of runc",
			stanza: func(shim, runtime string) string {
				return fmt.Sprintf("%sruntime_type = %q\nruntime_path = %q\n[%s.%s.options]\nBinaryName = %q\n", table, runcName, shim, runtimeTable, handler, runtime)
			},
		},
		{
			name: "type of runc, systemd",
			stanza: func(shim, runtime string) string {
				return fmt.Sprintf("%sruntime_type = %q\nruntime_path = %q\n[%s.%s.options]\nBinaryName = %q\nSystemdCgroup = true\n", table, runcName, shim, runtimeTable, handler, runtime)
			},
			driver: "+systemd",
		},
		{
			// So does runtime-class-manager. With options containerd refuses pods that
			// bring a mapping: they are not of runc's type.
			name:    "path as type",
			stanza:  func(shim, _ string) string { return fmt.Sprintf("%sruntime_type = %q\n", table, shim) },
			isolate: func(runtime string) string { return fmt.Sprintf("runtime.binary = %q\n", runtime) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rig.Require(t, rig.Root)
			programs, err := rig.Built(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			named, onPath := record(t, peer.Runc15), record(t, peer.Runc15)
			rig.Configure(t, "lxcfs.mode = \"off\"\n"+twoRanges)
			if c.isolate != nil {
				rig.Configure(t, "lxcfs.mode = \"off\"\n"+c.isolate(named.path))
			}
			n := startNode(t, rig.Config{
				Containerd: c.by,
				Programs:   map[string]string{"runc": onPath.path},
				TOML:       c.stanza(programs["containerd-shim-isolate-v1"], named.path),
			})
			n.importBusybox(t)
			for _, kind := range kinds {
				t.Run(kind.name, func(t *testing.T) {
					config := kind.config()
					if c.driver != "" {
						config = merge(config, message{"linux": message{"cgroup_parent": slice}})
					}
					named.take(t)
					p := n.pod(t, config)
					ctr := p.container(t, security(config, message{}))
					got := strings.Fields(ctr.sh(t, "cat /proc/self/uid_map"))
					if first, _ := ids(t, p.info(t).Info.PID); len(got) != 3 || got[1] != fmt.Sprint(first) {
						t.Errorf("ids are %q in the container and from %d on in its sandbox", got, first)
					}
					p.remove(t)
					want := strings.ReplaceAll("create@ start@ create@ start@ exec@ delete@ delete@", "@", c.driver)
					if got := named.take(t); got != want {
						t.Errorf("the named runtime was asked to %q, want %q", got, want)
					}
					if got := onPath.take(t); got != "" {
						t.Errorf("the runtime on the PATH was asked to %q", got)
					}
				})
			}
		})
	}
}

// TestStanzaWithOptionsOfItsOwn proves that options beside the shim's own type are
// obeyed where containerd passes them on; that containerd does not for a mapped
// pod, whose user is told so little; and that isolatectl says what to change.
func TestStanzaWithOptionsOfItsOwn(t *testing.T) {
	rig.Require(t, rig.Root)
	named := record(t, peer.Runc15)
	rig.Configure(t, "lxcfs.mode = \"off\"\n")
	n := startNode(t, rig.Config{TOML: isolateStanza + fmt.Sprintf("[%s.%s.options]\nBinaryName = %q\n", runtimeTable, handler, named.path)})
	n.importBusybox(t)
	p := n.pod(t, own())
	if got := named.take(t); got != "create start" {
		t.Errorf("the named runtime was asked to %q", got)
	}
	p.remove(t)
	config := mapped(300000)
	ctr, r := n.pod(t, config).tryContainer(t, security(config, message{}))
	r.Must(t)
	refused(t, n.try("start", ctr.id), `can't unmarshal type "runtimeoptions.v1.Options" to output "containerd.runc.v1.Options"`)

	programs, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r = rig.Exec(t.Context(), programs["isolatectl"], "check")
	for _, part := range []string{
		"CRI runtime isolate, ", "it has an options table: containerd then fails to start pods with hostUsers: false",
		"remove the options table and put its settings into /etc/isolate/config.toml",
	} {
		if !strings.Contains(r.Stdout, part) {
			t.Errorf("%q is not in what isolatectl says:\n%s%s", part, r.Stdout, r.Stderr)
		}
	}
	if r.Code == 0 {
		t.Error("isolatectl finds nothing to change")
	}
}
