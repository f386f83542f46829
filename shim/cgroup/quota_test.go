// SPDX-License-Identifier: Apache-2.0

package cgroup

import "testing"

func TestParseQuota(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"20000 100000": 0.2, "400000 100000": 4, "0 100000": 0} {
		if got, ok := parseQuota(text); !ok || got.processors() != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"max 100000", "-1 100000", "20000", "", "20000 0", "a b"} {
		if got, ok := parseQuota(text); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestSharedQuota: what a group inside gets is the same share of time, which version 1
// demands, and lxcfs counts the same processors.
func TestSharedQuota(t *testing.T) {
	t.Parallel()
	for own, want := range map[quota]quota{
		{150000, 100000}: {300000, 200000},
		{33333, 100000}:  {66666, 200000},
		{500000, 500000}: {1000000, 1000000},
		{500001, 500001}: {500001, 500001}, // no longer period is allowed
	} {
		if got := own.shared(); got != want || got.processors() != own.processors() {
			t.Errorf("%v: %v, want %v", own, got, want)
		}
	}
}

func TestLeads(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"Name:\tsh\nNStgid:\t4711\t1\nNSpid:\t4711\t1\n":            true,
		"NStgid:\t4711\t17\t1\nNSpid:\t4720\t20\t5\n":               true, // another thread of it
		"NStgid:\t4711\t17\n":                                       false,
		"NStgid:\t1\n":                                              false, // of this namespace
		"Name:\tx\n":                                                false,
		"Name:\tNStgid:\t4 1\nNStgid:\t4711\t17\nNSpid:\t4711\t1\n": false,
	} {
		if got := leads(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}
