// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

const ours = "isolate-default"

func labelled(t *testing.T, n *Nesting, proc specs.Process) (specs.Process, []string) {
	t.Helper()
	s := &specs.Spec{Process: &proc, Linux: &specs.Linux{}}
	p := &Plan{Mapping: idmap.Contiguous(300000, 65536), Nesting: n}
	warnings, err := initProcess(s, p)
	if err != nil {
		t.Fatal(err)
	}
	once := proc
	again, err := initProcess(s, p)
	if err != nil {
		t.Fatal(err)
	}
	if proc.ApparmorProfile != once.ApparmorProfile || proc.SelinuxLabel != once.SelinuxLabel || len(again) > len(warnings) {
		t.Errorf("applied twice: %q %q %q", proc.ApparmorProfile, proc.SelinuxLabel, again)
	}
	return proc, warnings
}

func TestAppArmorProfile(t *testing.T) {
	t.Parallel()
	loaded, missing, off := AppArmor{Enabled: true, Profile: ours}, AppArmor{Enabled: true}, AppArmor{}
	tests := []struct {
		name  string
		host  AppArmor
		given string
		want  string
		warns bool
	}{
		{name: "ctr", host: loaded, given: "", want: ours},
		{name: "Docker", host: loaded, given: "docker-default", want: ours},
		{name: "CRI", host: loaded, given: "cri-containerd.apparmor.d", want: ours},
		{name: "nerdctl", host: loaded, given: "nerdctl-default", want: ours},
		{name: "ours, asked for", host: loaded, given: ours, want: ours},
		{name: "another, asked for", host: loaded, given: "k8s-nginx", want: "k8s-nginx"},
		{name: "name that only begins alike", host: loaded, given: "docker-default-strict", want: "docker-default-strict"},
		{name: "docker run --privileged", host: loaded, given: "unconfined", want: "unconfined"},
		{name: "ctr, not loaded", host: missing, given: "", want: ""},
		{name: "Docker, not loaded", host: missing, given: "docker-default", want: "docker-default", warns: true},
		{name: "CRI, not loaded", host: missing, given: "cri-containerd.apparmor.d", want: "cri-containerd.apparmor.d", warns: true},
		{name: "another, not loaded", host: missing, given: "k8s-nginx", want: "k8s-nginx"},
		{name: "unconfined, not loaded", host: missing, given: "unconfined", want: "unconfined"},
		{name: "AppArmor off or apparmor = keep", host: off, given: "docker-default", want: "docker-default"},
		{name: "AppArmor off, nothing given", host: off, given: "", want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, warnings := labelled(t, &Nesting{AppArmor: tt.host}, specs.Process{ApparmorProfile: tt.given})
			if got.ApparmorProfile != tt.want {
				t.Errorf("profile %q, want %q", got.ApparmorProfile, tt.want)
			}
			if (len(warnings) == 1) != tt.warns || len(warnings) > 1 {
				t.Errorf("warnings %q, want one: %v", warnings, tt.warns)
			}
			if tt.warns && (!strings.Contains(warnings[0], tt.given) || !strings.Contains(warnings[0], "isolatectl apparmor load")) {
				t.Errorf("warning names neither profile nor fix: %s", warnings[0])
			}
		})
	}
}

func TestSELinuxLabel(t *testing.T) {
	t.Parallel()
	const (
		ordinary = "system_u:system_r:container_t:s0:c12,c345"
		engine   = "system_u:system_r:container_engine_t:s0:c12,c345"
		initType = "system_u:system_r:container_init_t:s0:c12,c345"
	)
	tests := []struct {
		name    string
		given   string
		systemd bool
		have    []string
		want    string
		warns   bool
	}{
		{name: "SELinux off", given: "", want: ""},
		{name: "privileged pod", given: "", have: NestingTypes, want: ""},
		{name: "ordinary", given: ordinary, have: NestingTypes, want: engine},
		{name: "systemd, which may run Docker", given: ordinary, systemd: true, have: NestingTypes, want: engine},
		{name: "systemd, policy without the engines' type", given: ordinary, systemd: true, have: []string{typeInit}, want: initType, warns: true},
		{name: "ordinary, policy without the engines' type", given: ordinary, have: []string{typeInit}, want: ordinary, warns: true},
		{name: "policy without either", given: ordinary, systemd: true, want: ordinary, warns: true},
		{name: "old name of the type", given: "system_u:system_r:svirt_lxc_net_t:s0:c1,c2", have: NestingTypes, want: "system_u:system_r:container_engine_t:s0:c1,c2"},
		{name: "level with a range", given: "system_u:system_r:container_t:s0-s0:c0.c1023", have: NestingTypes, want: "system_u:system_r:container_engine_t:s0-s0:c0.c1023"},
		{name: "policy without levels", given: "system_u:system_r:container_t", have: NestingTypes, want: "system_u:system_r:container_engine_t"},
		{name: "super-privileged", given: "system_u:system_r:spc_t:s0", have: NestingTypes, want: "system_u:system_r:spc_t:s0"},
		{name: "asked for", given: "system_u:system_r:container_logreader_t:s0:c1,c2", have: NestingTypes, want: "system_u:system_r:container_logreader_t:s0:c1,c2"},
		{name: "ours already", given: engine, have: NestingTypes, want: engine},
		{name: "no label", given: "container_t", have: NestingTypes, want: "container_t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, warnings := labelled(t, &Nesting{Systemd: tt.systemd, SELinux: tt.have}, specs.Process{SelinuxLabel: tt.given})
			if got.SelinuxLabel != tt.want {
				t.Errorf("label %q, want %q", got.SelinuxLabel, tt.want)
			}
			if (len(warnings) == 1) != tt.warns || len(warnings) > 1 {
				t.Errorf("warnings %q, want one: %v", warnings, tt.warns)
			}
		})
	}
}

// Without nesting both stay, whatever the host has.
func TestLabelsWithoutNesting(t *testing.T) {
	t.Parallel()
	given := specs.Process{ApparmorProfile: "docker-default", SelinuxLabel: "system_u:system_r:container_t:s0:c1,c2"}
	if got, warnings := labelled(t, nil, given); got.ApparmorProfile != given.ApparmorProfile || got.SelinuxLabel != given.SelinuxLabel || warnings != nil {
		t.Errorf("%q %q %q", got.ApparmorProfile, got.SelinuxLabel, warnings)
	}
}

// An exec'd process gets the labels of the first one, without its warnings.
func TestExecProcessLabels(t *testing.T) {
	t.Parallel()
	label := "system_u:system_r:container_t:s0:c1,c2"
	for _, n := range []*Nesting{
		{AppArmor: AppArmor{Enabled: true, Profile: ours}, SELinux: NestingTypes},
		{AppArmor: AppArmor{Enabled: true}},
	} {
		plan := &Plan{Mapping: idmap.Contiguous(300000, 65536), Nesting: n}
		in, err := json.Marshal(specs.Process{Args: []string{"sh"}, Cwd: "/", ApparmorProfile: "docker-default", SelinuxLabel: label})
		if err != nil {
			t.Fatal(err)
		}
		out, warnings, err := ExecProcess(in, plan)
		if err != nil || len(warnings) > 0 {
			t.Fatal(warnings, err)
		}
		var got specs.Process
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		first, _ := labelled(t, n, specs.Process{ApparmorProfile: "docker-default", SelinuxLabel: label})
		if !slices.Equal([]string{got.ApparmorProfile, got.SelinuxLabel}, []string{first.ApparmorProfile, first.SelinuxLabel}) {
			t.Errorf("exec'd %q %q, first %q %q", got.ApparmorProfile, got.SelinuxLabel, first.ApparmorProfile, first.SelinuxLabel)
		}
	}
}
