// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	marked := []string{"io_uring,", "mqueue,", "userns,"}
	for _, tt := range []struct {
		name  string
		knows map[string]bool
	}{
		{"2.13", nil},
		{"some carried back", map[string]bool{"userns,": true}},
		{"4", map[string]bool{"io_uring,": true, "mqueue,": true, "userns,": true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked []string
			got, err := text(func(rule string) (bool, error) {
				asked = append(asked, rule)
				return tt.knows[rule], nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(asked, " ") != strings.Join(marked, " ") {
				t.Errorf("asked for %q, want %q", asked, marked)
			}
			for _, rule := range marked {
				if has := strings.Contains(got, "\n  "+rule); has != tt.knows[rule] {
					t.Errorf("%s is there: %v", rule, has)
				}
			}
			for _, part := range []string{"profile " + Name + " ", "  mount,\n", "deny /proc/sysrq-trigger", "local/" + Name + ">\n}\n"} {
				if !strings.Contains(got, part) {
					t.Errorf("%q is not there", part)
				}
			}
		})
	}
	broken := errors.New("broken")
	if _, err := text(func(string) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestListed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		profiles string
		want     bool
	}{
		{"", false},
		{"docker-default (enforce)\nisolate-default (enforce)\n", true},
		{"isolate-default (complain)\n", true},
		{"isolate-default//hat (enforce)\nisolate-default-2 (enforce)\n/usr/bin/isolate-default (enforce)\n", false},
		{"isolate-default\n", false},
	} {
		if got := listed(tt.profiles); got != tt.want {
			t.Errorf("%q: %v", tt.profiles, got)
		}
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		label, name string
		confined    bool
	}{
		{"snap.microk8s.daemon-containerd (enforce)\n\x00", "snap.microk8s.daemon-containerd", true},
		{"x (kill)", "x", true},
		{"a//&b (mixed)", "a//&b", true},
		{"snap.x (complain)", "snap.x", false},
		{"runc (unconfined)", "runc", false},
		{"unconfined\n", "unconfined", false},
		{"system_u:system_r:container_runtime_t:s0\x00", "system_u:system_r:container_runtime_t:s0", false},
		{"", "", false},
	} {
		if name, confined := Profile(tt.label); name != tt.name || confined != tt.confined {
			t.Errorf("%q: %q %v", tt.label, name, confined)
		}
	}
}

func TestInUse(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	process := func(pid, label string) {
		dir := filepath.Join(proc, pid, "attr")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "current"), []byte(label), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process("1", "unconfined\n")
	process("2", "isolate-default-2 (enforce)\n")
	process("self", "isolate-default (enforce)\n")
	if used, err := inUse(proc); used || err != nil {
		t.Errorf("%v %v", used, err)
	}
	process("30", "isolate-default (enforce)\n")
	if used, err := inUse(proc); !used || err != nil {
		t.Errorf("%v %v", used, err)
	}
}

func FuzzProfile(f *testing.F) {
	f.Add("isolate-default (enforce)\n")
	f.Fuzz(func(_ *testing.T, label string) {
		Profile(label)
		listed(label)
	})
}
