// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/spec"
)

var adopted = &spec.Sandbox{ID: "pod", Mode: spec.ModeAdopt, Userns: "/proc/9/ns/user", Mapping: theirs}

func TestIDsOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		spec    *specs.Spec
		mode    spec.Mode
		sandbox *spec.Sandbox
		from    IDs
		userns  string
	}{
		{"own", with(), spec.ModeOwn, nil, Acquired, ""},
		{"adopted", with(at(specs.UserNamespace, "")), spec.ModeAdopt, nil, Adopted, ""},
		{"adopted, of a namespace", with(at(specs.UserNamespace, "/u")), spec.ModeAdopt, nil, Adopted, "/u"},
		{"joined", with(), spec.ModeJoin, sandbox, Shared, ""},
		{"joined one that is adopted", with(), spec.ModeJoin, adopted, Adopted, adopted.Userns},
	} {
		if from, userns := IDsOf(c.spec, c.mode, c.sandbox); from != c.from || userns != c.userns {
			t.Errorf("%s: %v, %q, want %v, %q", c.name, from, userns, c.from, c.userns)
		}
	}
}

func TestMapsRootfs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		mode    spec.Mode
		sandbox *spec.Sandbox
		mounted bool // with a mapping
		want    bool
	}{
		{"own", spec.ModeOwn, nil, false, true},
		{"adopt", spec.ModeAdopt, nil, false, false},
		{"join one of ours", spec.ModeJoin, sandbox, false, true},
		{"join one of ours, mapped already", spec.ModeJoin, sandbox, true, false},
		{"join the caller's", spec.ModeJoin, adopted, false, false},
	} {
		if got := MapsRootfs(c.mode, c.sandbox, c.mounted); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestUserns(t *testing.T) {
	t.Parallel()
	apart := spec.Plan{Decision: spec.Decision{Apart: true}}
	for _, c := range []struct {
		name  string
		spec  *specs.Spec
		plan  spec.Plan
		path  string
		makes bool
	}{
		{"none", with(), spec.Plan{}, "", true},
		{"a new one", with(at(specs.UserNamespace, "")), spec.Plan{}, "", true},
		{"the caller's", with(at(specs.UserNamespace, "/u")), spec.Plan{}, "/u", false},
		{"planned", with(), spec.Plan{Userns: "/p"}, "/p", false},
		{"planned, instead of the caller's", with(at(specs.UserNamespace, "/u")), spec.Plan{Userns: "/p"}, "/p", false},
		{"apart from the caller's", with(at(specs.UserNamespace, "/u")), apart, "/u", true},
	} {
		if path, makes := Userns(c.spec, &c.plan), MakesUserns(c.spec, &c.plan); path != c.path || makes != c.makes {
			t.Errorf("%s: %q, is made: %v", c.name, path, makes)
		}
	}
}

func TestOwnPIDs(t *testing.T) {
	t.Parallel()
	if !OwnPIDs(with()) || OwnPIDs(with(at(specs.PIDNamespace, "/p"))) || OwnPIDs(&specs.Spec{Linux: &specs.Linux{}}) {
		t.Error("a new pid namespace is the container's own, and no other")
	}
}

func TestClocksOf(t *testing.T) {
	t.Parallel()
	offsets := map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5}}
	asks := with(at(specs.TimeNamespace, ""))
	asks.Linux.TimeOffsets = offsets
	off := config.Default()
	off.LXCFS.Mode = config.LXCFSOff
	crun, runc, planned := runtime.Binary{Name: runtime.Crun}, runtime.Binary{Name: runtime.Runc}, &spec.Plan{Userns: "/u"}
	for _, c := range []struct {
		name string
		r    Request
		plan *spec.Plan
		want *Clocks
	}{
		{"own", Request{Spec: with(), Config: config.Default(), Runtime: crun}, planned, &Clocks{Userns: "/u"}},
		{"asked for", Request{Spec: asks, Config: off, Runtime: crun}, planned, &Clocks{"/u", offsets}},
		{"of the caller's user namespace", Request{Spec: with(at(specs.UserNamespace, "/v")), Config: config.Default(), Runtime: crun}, &spec.Plan{}, &Clocks{Userns: "/v"}},
		{"without lxcfs", Request{Spec: with(), Config: off, Runtime: crun}, planned, nil},
		{"of a pod", Request{Spec: with(at(specs.PIDNamespace, "/p")), Config: config.Default(), Runtime: crun}, planned, nil},
		{"a runtime that cannot", Request{Spec: asks, Config: config.Default(), Runtime: runc}, planned, nil},
		{"the runtime makes the user namespace", Request{Spec: with(), Config: config.Default(), Runtime: crun}, &spec.Plan{}, nil},
		{"restored", Request{Spec: asks, Config: config.Default(), Runtime: crun, Restored: true}, planned, nil},
	} {
		if got := ClocksOf(c.r, c.plan); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if err := (Clocks{Asked: offsets}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Clocks{Asked: map[string]specs.LinuxTimeOffset{"realtime": {}}}).Check(); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("a clock that does not exist: %v", err)
	}
}

func TestWithheld(t *testing.T) {
	t.Parallel()
	if got := Withheld(&spec.Plan{}); got != nil {
		t.Errorf("without a time namespace: %q", got)
	}
	if got := Withheld(&spec.Plan{Timens: "/t"}); !slices.Equal(got, []string{"proc/uptime"}) {
		t.Errorf("with a time namespace: %q", got)
	}
}
