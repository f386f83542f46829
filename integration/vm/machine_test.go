// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/apt"
)

func TestParse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := parse([]string{
		"--kernel", "6.1", "--cgroup", "v1", "--init", "systemd", "--smp", "2", "--mem", "3G",
		"--share", dir, "--share", "/", "--append", "a=1", "--append", "b", "--timeout", "1.5", "--", "cmd", "--kernel", "x",
	}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if c.Kernel != Linux61 || c.Cgroup != CgroupV1 || c.Init != InitSystemd || c.CPUs != 2 || c.Memory != "3G" || c.Timeout != 1500*time.Millisecond {
		t.Errorf("got %+v", c)
	}
	for name, pair := range map[string][2][]string{
		"shares":     {c.Shares, {dir, "/"}},
		"parameters": {c.Append, {"a=1", "b"}},
		"command":    {c.Argv, {"cmd", "--kernel", "x"}},
	} {
		if !slices.Equal(pair[0], pair[1]) {
			t.Errorf("%s: got %q, want %q", name, pair[0], pair[1])
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"an unknown kernel", []string{"--kernel", "2.6", "--", "x"}, `kernel "2.6" is none of`},
		{"an unknown cgroup version", []string{"--cgroup", "v3", "--", "x"}, `cgroup version "v3"`},
		{"an unknown init", []string{"--init", "sysv", "--", "x"}, `init "sysv"`},
		{"no processor", []string{"--smp", "0", "--", "x"}, "0 processors"},
		{"no command", nil, "no command"},
		{"a share that is not there", []string{"--share", "/nowhere", "--", "x"}, `"/nowhere" is no directory`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(test.args, t.Output())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		config       Config
		want, refuse []string
	}{
		{
			"v2 with the small init",
			Config{Cgroup: CgroupV2, Init: InitNone},
			[]string{"console=ttyS0", "panic=-1"},
			[]string{"systemd.unit=vm.target", "cgroup_enable=memory"},
		},
		{
			"v1 with systemd",
			Config{Cgroup: CgroupV1, Init: InitSystemd},
			[]string{"systemd.unit=vm.target", "systemd.unified_cgroup_hierarchy=0", "cgroup_enable=memory"},
			[]string{"systemd.unified_cgroup_hierarchy=1"},
		},
		{
			"v2 with systemd and more",
			Config{Cgroup: CgroupV2, Init: InitSystemd, Append: []string{"apparmor=1", "audit=1"}},
			[]string{"systemd.unified_cgroup_hierarchy=1", "apparmor=1", "selinux=0"},
			[]string{"systemd.unified_cgroup_hierarchy=0", "apparmor=0", "audit=0"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			words := strings.Fields(commandLine(test.config))
			for _, word := range test.want {
				if !slices.Contains(words, word) {
					t.Errorf("%q is missing in %q", word, words)
				}
			}
			for _, word := range test.refuse {
				if slices.Contains(words, word) {
					t.Errorf("%q is in %q", word, words)
				}
			}
			if n := len(test.config.Append); n > 0 && !slices.Equal(words[len(words)-n:], test.config.Append) {
				t.Errorf("%q does not end with %q, which must win", words, test.config.Append)
			}
		})
	}
}

func TestShareEscapesComma(t *testing.T) {
	t.Parallel()
	options := machineOptions(Config{CPUs: 1, Memory: "1G", Shares: []string{"/a,b"}}, "/vmlinux")
	want := "local,id=share0,security_model=none,multidevs=remap,path=/a,,b"
	if !slices.Contains(options, want) {
		t.Errorf("%q is missing in %q", want, options)
	}
	if !slices.Contains(options, "local,id=host,security_model=none,readonly=on,multidevs=remap,path=/") {
		t.Errorf("the host's root is not shared read-only in %q", options)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	env := []string{"A=1", "TMPDIR=/elsewhere", "TMPDIR2=x"}
	got := environment(env)
	if want := []string{"A=1", "TMPDIR2=x", "TMPDIR=/vm/tmp"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if env[1] != "TMPDIR=/elsewhere" {
		t.Error("the caller's environment has changed")
	}
}

func TestConsoleKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	c := &console{copy: &all}
	for range 1000 {
		if _, err := c.Write([]byte("noise of some length\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("the end\r\n")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(c.tail(), "\n")
	if len(lines) != 40 || lines[39] != "the end" || lines[0] != "noise of some length" {
		t.Errorf("got %d lines, first %q, last %q", len(lines), lines[0], lines[len(lines)-1])
	}
	if want := 1000*22 + 9; all.Len() != want {
		t.Errorf("copied %d bytes, want %d", all.Len(), want)
	}
}

func TestInstalledLeavesOutWhatIsWanted(t *testing.T) {
	t.Parallel()
	closure := apt.Closure{{Name: "linux-image-6.12-amd64", Version: "6.12-1"}, {Name: "kmod", Version: "34-2"}}
	got := installed(closure, isKernelPackage)
	if !strings.Contains(got, "Package: kmod\n") || !strings.Contains(got, "Version: 34-2\n") || strings.Contains(got, "linux-image") {
		t.Errorf("got %q", got)
	}
}
