// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// allows tells whether one of the rules allows a call, as libseccomp reads rules whose
// conditions are on different arguments: seccomp_rule_add(3).
func allows(rules []specs.LinuxSyscall, name string, args [6]uint64) bool {
	holds := func(a specs.LinuxSeccompArg) bool {
		switch v := args[a.Index]; a.Op {
		case specs.OpEqualTo:
			return v == a.Value
		case specs.OpLessThan:
			return v < a.Value
		case specs.OpMaskedEqual:
			return v&a.Value == a.ValueTwo
		default:
			panic("the test does not know " + a.Op)
		}
	}
	return slices.ContainsFunc(rules, func(r specs.LinuxSyscall) bool {
		return r.Action == specs.ActAllow && slices.Contains(r.Names, name) &&
			!slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool { return !holds(a) })
	})
}

// words are values that tell rules about an int apart: all small ones and their
// negatives, what differs from one of a profile's in one bit, and any others.
func words() []uint32 {
	var all []uint32
	for v := range uint32(1024) {
		all = append(all, v)
	}
	for _, v := range all {
		all = append(all, ^v)
		for bit := uint32(1); v < 64 && bit != 0; bit <<= 1 {
			all = append(all, v^bit, 0x20000^v^bit, 0x20008^v^bit, ^v^bit)
		}
	}
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // no secret
	for range 10000 {
		all = append(all, r.Uint32())
	}
	return all
}

// uppers are what programs leave in the upper half of an int.
var uppers = []uint64{0, 1 << 32, 1 << 63, 0xffffffff << 32}

// TestMergedRulesAllowTheSame: for each value of an int that the kernel can see, and
// whatever is in the half of the register that it does not read.
func TestMergedRulesAllowTheSame(t *testing.T) {
	t.Parallel()
	given := profileFor(nestingCaps).Syscalls
	merged := mergeRules(given)
	for _, name := range wordCalls {
		for _, v := range words() {
			want := allows(given, name, [6]uint64{uint64(v)})
			for _, upper := range uppers {
				if got := allows(merged, name, [6]uint64{upper | uint64(v)}); got != want {
					t.Fatalf("%s(%#x) is allowed: %v", name, upper|uint64(v), got)
				}
			}
		}
		given = slices.DeleteFunc(slices.Clone(given), func(r specs.LinuxSyscall) bool { return slices.Equal(r.Names, []string{name}) })
		merged = slices.DeleteFunc(slices.Clone(merged), func(r specs.LinuxSyscall) bool { return slices.Equal(r.Names, []string{name}) })
	}
	if !reflect.DeepEqual(given, merged) {
		t.Error("rules of other calls have changed")
	}
}

// TestKeyRulesAllowTheSame as a rule for each operation.
func TestKeyRulesAllowTheSame(t *testing.T) {
	t.Parallel()
	rules := keyRules()
	serials := []uint32{^uint32(0), ^uint32(1), ^uint32(2), ^uint32(3), ^uint32(4), 0, 1, 8, 1 << 31}
	for _, op := range words() {
		if op >= 64 {
			serials = []uint32{^uint32(2), ^uint32(3)}
		}
		for _, from := range serials {
			for _, to := range serials {
				want := slices.Contains(keyOperations, op) || op == 8 && from == ^uint32(3) && to == ^uint32(2)
				for _, upper := range uppers {
					if got := allows(rules, keyctl, [6]uint64{upper | uint64(op), upper | uint64(from), upper | uint64(to)}); got != want {
						t.Fatalf("keyctl(%#x, %#x, %#x) with %#x is allowed: %v", op, from, to, upper, got)
					}
				}
			}
		}
	}
	if len(rules) != 8 {
		t.Errorf("%d rules", len(rules))
	}
}

// TestRulesOfOtherFormsStay: they may say something else about the same call.
func TestRulesOfOtherFormsStay(t *testing.T) {
	t.Parallel()
	equal := func(v uint64) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: v, Op: specs.OpEqualTo}}}
	}
	change := func(f func(*specs.LinuxSyscall)) specs.LinuxSyscall {
		r := equal(3)
		f(&r)
		return r
	}
	code := uint(38)
	for name, other := range map[string]specs.LinuxSyscall{
		"two names":        change(func(r *specs.LinuxSyscall) { r.Names = []string{"bind", "socket"} }),
		"all":              change(func(r *specs.LinuxSyscall) { r.Args = nil }),
		"denied":           change(func(r *specs.LinuxSyscall) { r.Action, r.ErrnoRet = specs.ActErrno, &code }),
		"somebody waits":   change(func(r *specs.LinuxSyscall) { r.Action = specs.ActNotify }),
		"another argument": change(func(r *specs.LinuxSyscall) { r.Args[0].Index = 1 }),
		"two arguments":    change(func(r *specs.LinuxSyscall) { r.Args = append(r.Args, specs.LinuxSeccompArg{Index: 1}) }),
		"not":              change(func(r *specs.LinuxSyscall) { r.Args[0].Op = specs.OpNotEqual }),
		"more":             change(func(r *specs.LinuxSyscall) { r.Args[0].Op = specs.OpGreaterThan }),
		"many":             change(func(r *specs.LinuxSyscall) { r.Args[0].Op, r.Args[0].Value = specs.OpLessThan, 1<<20 }),
		"no int":           equal(1 << 32),
	} {
		given := []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}, equal(1), equal(2), other, equal(3)}
		if got := mergeRules(given); !reflect.DeepEqual(got, given) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
