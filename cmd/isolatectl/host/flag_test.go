// SPDX-License-Identifier: Apache-2.0

package host

import "testing"

func TestFlagValue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "/default"},
		{[]string{"containerd", "-c", "/a"}, "/a"},
		{[]string{"containerd", "--config", "/a", "-config=/b"}, "/b"},
		{[]string{"containerd", "--config=/a", "-l", "debug", "-c"}, "/a"},
	} {
		if got := flagValue(test.args, "/default", "-c", "--config"); got != test.want {
			t.Errorf("%q: got %q, want %q", test.args, got, test.want)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text         string
		major, minor int
		ok           bool
	}{
		{"v2.4.2", 2, 4, true},
		{"1.6.20~ds1", 1, 6, true},
		{"2.4.2+unknown", 2, 4, true},
		{"26.1.5+dfsg1", 26, 1, true},
		{"dev", 0, 0, false},
		{"", 0, 0, false},
	} {
		if major, minor, ok := Version(c.text); major != c.major || minor != c.minor || ok != c.ok {
			t.Errorf("%q: %d %d %v", c.text, major, minor, ok)
		}
	}
}
