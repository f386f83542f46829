// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

func initProcess(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Nesting == nil {
		return Process(s.Process, p)
	}
	// Said of the container, and not again of each process.
	denied := append(p.Nesting.AppArmor.denies(s.Process), seDenies(s.Process.SelinuxLabel, p.Nesting.SELinux)...)
	warnings, err := Process(s.Process, p)
	return append(denied, warnings...), err
}

// Process gives a process of the container the treatment that its user
// namespace needs. The init process and every exec'd process go through it.
func Process(proc *specs.Process, p *Plan) ([]string, error) {
	if err := userMapped(proc.User, p.Mapping); err != nil {
		return nil, err
	}
	if p.Nesting == nil {
		return nil, nil
	}
	capabilities(proc, p.Nesting)
	environment(proc)
	p.Nesting.AppArmor.confined(proc)
	proc.SelinuxLabel = seLabel(proc.SelinuxLabel, p.Nesting.Systemd, p.Nesting.SELinux)
	return rlimits(proc, p.Nesting), nil
}

// userMapped refuses a user that the container's ids do not contain; the
// runtime would only say "invalid argument".
func userMapped(u specs.User, m idmap.Mapping) error {
	if _, ok := m.UIDToHost(idmap.ContainerID(u.UID)); !ok {
		return outside("user", u.UID)
	}
	for _, gid := range append([]uint32{u.GID}, u.AdditionalGids...) {
		if _, ok := m.GIDToHost(idmap.ContainerID(gid)); !ok {
			return outside("group", gid)
		}
	}
	return nil
}

func outside(what string, id uint32) error {
	return fmt.Errorf("%s %d is outside the container's id range; use a smaller id or give the container more ids (ids.size): %w", what, id, ErrRefused)
}

// ExecProcess treats the process of an Exec request, in JSON. Fields that this
// version of runtime-spec does not know are kept.
func ExecProcess(data []byte, p *Plan) ([]byte, []string, error) {
	var proc specs.Process
	if err := json.Unmarshal(data, &proc); err != nil {
		return nil, nil, fmt.Errorf("decode process: %w", err)
	}
	if err := oneReading(data, &proc); err != nil {
		return nil, nil, fmt.Errorf("decode process: %w", err)
	}
	before, err := json.Marshal(&proc)
	if err != nil {
		return nil, nil, fmt.Errorf("encode process: %w", err)
	}
	warnings, err := Process(&proc, p)
	if err != nil {
		return nil, warnings, err
	}
	out, err := merge(data, before, &proc)
	return out, warnings, err
}
