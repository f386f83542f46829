// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"maps"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/spec"
)

// with returns a spec of a container that has these namespaces, and private ones of the
// types that each container must have.
func with(namespaces ...specs.LinuxNamespace) *specs.Spec {
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.NetworkNamespace} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: namespaces}}
		if spec.Namespace(s, kind) == nil {
			namespaces = append(namespaces, specs.LinuxNamespace{Type: kind})
		}
	}
	return &specs.Spec{Version: "1.3.0", Process: &specs.Process{}, Root: &specs.Root{}, Linux: &specs.Linux{Namespaces: namespaces}}
}

func at(kind specs.LinuxNamespaceType, path string) specs.LinuxNamespace {
	return specs.LinuxNamespace{Type: kind, Path: path}
}

var (
	theirs  = idmap.Contiguous(200000, 1000)
	sandbox = &spec.Sandbox{ID: "pod", Mode: spec.ModeOwn, Userns: "/proc/7/ns/user", Mapping: theirs, Pod: true}
	peer    = &spec.Sandbox{ID: "peer", Mode: spec.ModeJoin, Userns: "/proc/8/ns/user", Mapping: theirs}
)

func TestNew(t *testing.T) {
	t.Parallel()
	mapped := with(at(specs.UserNamespace, ""))
	mapped.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 200000, Size: 1000}}
	mapped.Linux.GIDMappings = mapped.Linux.UIDMappings
	broken := with(at(specs.UserNamespace, ""))
	broken.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 200000}}
	broken.Linux.GIDMappings = broken.Linux.UIDMappings
	inPod, inPeer := with(at(specs.NetworkNamespace, "/n")), with(at(specs.NetworkNamespace, "/n"), at(specs.PIDNamespace, "/p"))
	ofPod := map[specs.LinuxNamespaceType]spec.Owner{specs.NetworkNamespace: spec.OwnerSandbox}
	ofPeer := map[specs.LinuxNamespaceType]spec.Owner{specs.NetworkNamespace: spec.OwnerSandbox, specs.PIDNamespace: spec.OwnerOther}
	ofPodAndPeer := map[specs.LinuxNamespaceType]spec.Owner{specs.UserNamespace: spec.OwnerSandbox, specs.NetworkNamespace: spec.OwnerSandbox, specs.PIDNamespace: spec.OwnerOther}
	mappedPeer := with(at(specs.UserNamespace, "/u"), at(specs.NetworkNamespace, "/n"), at(specs.PIDNamespace, "/p"))
	mappedPeer.Linux.UIDMappings, mappedPeer.Linux.GIDMappings = mapped.Linux.UIDMappings, mapped.Linux.GIDMappings
	shared := config.Default()
	shared.Pods = config.PodsShared
	for _, c := range []struct {
		name    string
		spec    *specs.Spec
		cfg     config.Config
		facts   spec.Facts
		mode    spec.Mode
		mapping idmap.Mapping
		userns  string
		refused bool
	}{
		{"own", with(), config.Default(), spec.Facts{}, spec.ModeOwn, idmap.Mapping{}, "", false},
		{"adopted", mapped, config.Default(), spec.Facts{}, spec.ModeAdopt, theirs, "", false},
		{"adopted, not a mapping", broken, config.Default(), spec.Facts{}, "", idmap.Mapping{}, "", true},
		{"refused", with(), config.Default(), spec.Facts{RootfsMapped: true}, "", idmap.Mapping{}, "", true},
		{"joined", inPod, shared, spec.Facts{Sandbox: sandbox, Joined: ofPod}, spec.ModeJoin, theirs, sandbox.Userns, false},
		{"apart", inPod, config.Default(), spec.Facts{Sandbox: sandbox, Joined: ofPod}, spec.ModeJoin, theirs, "", false},
		{"in a peer", inPeer, config.Default(), spec.Facts{Sandbox: sandbox, Peer: peer, Joined: ofPeer}, spec.ModeJoin, theirs, peer.Userns, false},
		{"in a peer of the caller's pod", mappedPeer, config.Default(), spec.Facts{Sandbox: adopted, Peer: peer, Joined: ofPodAndPeer}, spec.ModeAdopt, theirs, peer.Userns, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := New(Request{Spec: c.spec, Config: c.cfg, Runtime: runtime.Binary{Name: runtime.Runc, Version: "1.3.0"}}, c.facts)
			if errors.Is(err, spec.ErrRefused) != c.refused || (err != nil) != c.refused {
				t.Fatal(err)
			}
			if got.Mode != c.mode || !got.Mapping.Equal(c.mapping) || got.Userns != c.userns {
				t.Errorf("mode %s, mapping %v, user namespace %q", got.Mode, got.Mapping, got.Userns)
			}
			if got.MisreportsPIDs {
				t.Error("runc misreports pids")
			}
		})
	}
}

// TestNewForARuntime has the plan follow what the runtime can do.
func TestNewForARuntime(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Annotations.Allow = []string{"size"}
	crun := runtime.Binary{Name: runtime.Crun, SpecVersion: "1.0.0", Features: &features.Features{PotentiallyUnsafeConfigAnnotations: []string{"run.oci.x"}}}
	got, err := New(Request{Spec: with(), Config: cfg, Runtime: crun}, spec.Facts{})
	if err != nil || !got.MisreportsPIDs || got.OCIVersion != "1.0.0" {
		t.Errorf("%+v, %v", got, err)
	}
	if a := got.Annotations; !reflect.DeepEqual(a.Allowed, []string{"size"}) || !reflect.DeepEqual(a.Obeyed, []string{"run.oci.x"}) {
		t.Errorf("annotations: %+v", a)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*config.Config)
		bin    runtime.Binary
		want   spec.Policy
	}{
		"default":       {func(*config.Config) {}, runtime.Binary{}, spec.Policy{Apart: true}},
		"refuse":        {func(c *config.Config) { c.ForeignNetns = config.ForeignNetnsRefuse }, runtime.Binary{}, spec.Policy{Apart: true, RefuseForeignNetns: true}},
		"shared":        {func(c *config.Config) { c.Pods = config.PodsShared }, runtime.Binary{}, spec.Policy{}},
		"no nesting":    {func(c *config.Config) { c.Nesting = config.NestingOff }, runtime.Binary{}, spec.Policy{}},
		"honoured caps": {func(c *config.Config) { c.Caps = config.CapsHonor }, runtime.Binary{}, spec.Policy{}},
		"old runc":      {func(*config.Config) {}, runtime.Binary{Name: runtime.Runc, Version: "1.1.5"}, spec.Policy{Apart: true, OneUserns: true}},
	} {
		cfg := config.Default()
		c.change(&cfg)
		if got := policy(cfg, c.bin); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestNesting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*config.Config)
		d      spec.Decision
		want   *spec.Nesting
		inner  bool
		asks   bool
	}{
		"default":       {func(*config.Config) {}, spec.Decision{}, &spec.Nesting{}, true, true},
		"off":           {func(c *config.Config) { c.Nesting = config.NestingOff }, spec.Decision{}, nil, false, false},
		"honoured caps": {func(c *config.Config) { c.Caps = config.CapsHonor }, spec.Decision{}, &spec.Nesting{KeepCaps: true}, true, true},
		"as asked":      {func(*config.Config) {}, spec.Decision{AsAsked: true}, &spec.Nesting{KeepCaps: true}, true, true},
		"kept seccomp":  {func(c *config.Config) { c.Seccomp = config.SeccompKeep }, spec.Decision{}, &spec.Nesting{KeepSeccomp: true}, false, false},
		"not nested":    {func(c *config.Config) { c.LXCFS.Nested = false }, spec.Decision{}, &spec.Nesting{}, false, true},
		"no sysinfo":    {func(c *config.Config) { c.LXCFS.Sysinfo = false }, spec.Decision{}, &spec.Nesting{}, true, false},
	} {
		cfg := config.Default()
		c.change(&cfg)
		got := Nesting(cfg, c.d)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if inner := ShowsInner(&spec.Plan{Nesting: got}, cfg); inner != c.inner {
			t.Errorf("%s: inner containers see its limits: %v", name, inner)
		}
		if asks := AnswersSysinfo(&spec.Plan{Nesting: got}, cfg); asks != c.asks {
			t.Errorf("%s: sysinfo is answered: %v", name, asks)
		}
	}
}

func TestHardLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ own, want map[string]uint64 }{
		"with CAP_SYS_RESOURCE": {nil, map[string]uint64{"RLIMIT_NOFILE": 1000}},
		"lower own":             {map[string]uint64{"RLIMIT_NOFILE": 500, "RLIMIT_CORE": 0}, map[string]uint64{"RLIMIT_NOFILE": 500, "RLIMIT_CORE": 0}},
		"higher own":            {map[string]uint64{"RLIMIT_NOFILE": 5000, "RLIMIT_NPROC": 7}, map[string]uint64{"RLIMIT_NOFILE": 1000, "RLIMIT_NPROC": 7}},
	} {
		if got := HardLimits(1000, c.own); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestNetSysctlFile(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{ // "" for a refusal
		"net.ipv4.ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net/ipv4/ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net/ipv4/conf/eth0.1/forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net/../kernel/core_pattern":      "",
		"net/../../../etc/passwd":         "",
		"net":                             "",
		"net/..":                          "",
		"net/../net":                      "",
		"kernel.core_pattern":             "",
	} {
		got, err := NetSysctlFile(key)
		if got != want || errors.Is(err, spec.ErrRefused) != (want == "") {
			t.Errorf("NetSysctlFile(%q) = %q, %v, want %q", key, got, err, want)
		}
	}
}
