// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// word is all of an argument that the kernel reads as an int.
const word = 1<<32 - 1

// wordCalls are system calls of which the kernel reads no more than 32 bits of the
// first argument, and which profiles allow for some values of it.
var wordCalls = []string{"personality", "socket"}

// listable bounds the values of one rule: families of sockets are some fifty.
const listable = 256

// mergeRules replaces the rules that allow one of wordCalls for single values of its
// first argument by fewer rules with masks. libseccomp takes some 70 microseconds for
// each rule and ABI, and three times that for a range. Rules of any other form stay,
// all of that call.
//
// Calls with anything in the upper half of the argument, which the kernel does not
// read, are treated as those without.
func mergeRules(rules []specs.LinuxSyscall) []specs.LinuxSyscall {
	for _, name := range wordCalls {
		var rest []specs.LinuxSyscall
		var values []uint32
		ok := true
		for _, rule := range rules {
			if !slices.Contains(rule.Names, name) {
				rest = append(rest, rule)
				continue
			}
			of, listed := allowedValues(rule)
			values, ok = append(values, of...), ok && listed
		}
		if merged := allowWords(name, values); ok && len(merged) > 0 {
			rules = append(rest, merged...)
		}
	}
	return rules
}

// allowedValues lists the values of the first argument for which a rule allows its one
// system call, if that is all that it does.
func allowedValues(rule specs.LinuxSyscall) (values []uint32, ok bool) {
	if rule.Action != specs.ActAllow || len(rule.Names) != 1 || len(rule.Args) != 1 || rule.Args[0].Index != 0 {
		return nil, false
	}
	switch a := rule.Args[0]; {
	case a.Op == specs.OpEqualTo && a.Value <= word:
		return []uint32{uint32(a.Value)}, true
	case a.Op == specs.OpLessThan && a.Value <= listable:
		for v := range uint32(a.Value) { //nolint:gosec // less than listable
			values = append(values, v)
		}
		return values, true
	}
	return nil, false
}

// allowWords returns rules that allow a system call for these values of its first
// argument, read as 32 bits, and for no others: each rule leaves as many bits open as
// it can.
func allowWords(name string, values []uint32) (rules []specs.LinuxSyscall) {
	wanted, done := map[uint32]bool{}, map[uint32]bool{}
	for _, v := range values {
		wanted[v] = true
	}
	for _, v := range values {
		if done[v] {
			continue
		}
		same := []uint32{v} // but for the open bits
		var open uint32
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if slices.ContainsFunc(same, func(s uint32) bool { return !wanted[s^bit] }) {
				continue
			}
			open |= bit
			for _, s := range same {
				same = append(same, s^bit)
			}
		}
		for _, s := range same {
			done[s] = true
		}
		rules = append(rules, allowIf(name, wordIs(0, open, v)))
	}
	return rules
}

func allowIf(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
}

// wordIs is the condition that an argument, read as 32 bits, has a value but for the
// open bits.
func wordIs(index uint, open, value uint32) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: uint64(^open), ValueTwo: uint64(value &^ open), Op: specs.OpMaskedEqual}
}
