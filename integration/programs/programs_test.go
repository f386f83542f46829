// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestJudge: a program that sees the host is found out, unless it may, and so is one that
// does not answer.
func TestJudge(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for n := range least {
		fmt.Fprintf(&all, "cpus program%d 1\n", n)
	}
	for _, test := range []struct {
		answers, sees string
		right         bool
	}{
		{"memory free 1048576\n", "the container", true},
		{"memory free 1048575\n", "the host", false},
		{"memory free 24684612\n", "the host", false},
		{"uptime ps 65\n", "the container", true},
		{"uptime ps 66\n", "the host", false},
		{"cpus nproc 2\n", "the host", true},
		{"cpus stat 2\n", "the host", false},
		{"cpus stat 0\n", "the host", false},
		{"cpus stat \n", "nothing", false},
		{"cpus nproc\n", "nothing", false},
		{"colour stat 1\n", "nothing", false},
	} {
		rows, wrong := judge(all.String()+test.answers, time.Minute, ofHost)
		if len(rows) != least+1 || !strings.HasSuffix(rows[least], "sees "+test.sees) || (len(wrong) == 0) != test.right {
			t.Errorf("%q: %q, wrong are %q", test.answers, rows[least:], wrong)
		}
	}
	if _, wrong := judge("cpus stat 1\n", time.Minute, nil); len(wrong) != 1 {
		t.Errorf("one answer: wrong are %q", wrong)
	}
}
