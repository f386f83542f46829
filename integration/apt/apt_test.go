// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"slices"
	"strings"
	"testing"
)

func TestChooseMirror(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, targets string
		want          mirror
		fails         bool
	}{
		{
			name: "main and security among others",
			targets: "https://packages.test/apt tool-bookworm main\n" +
				"http://mirror.test/debian/ bookworm non-free\n" +
				"http://mirror.test/debian/ bookworm main\n" +
				"http://mirror.test/debian/ bookworm-updates main\n" +
				"http://second.test/debian/ trixie main\n" +
				"http://mirror.test/security/ bookworm-security main\n",
			want: mirror{main: "http://mirror.test/debian/", security: "http://mirror.test/security/"},
		},
		{name: "no security", targets: "http://m.test/d stable main", want: mirror{main: "http://m.test/d"}},
		{name: "a derivative", targets: "http://m.test/d noble main", fails: true},
		{name: "nothing", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := chooseMirror(test.targets)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("chooseMirror() = %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	got := mirror{main: "http://m.test/d", security: "http://m.test/s"}.sources(Trixie)
	for _, want := range []string{"] http://m.test/d trixie main\n", "] http://m.test/s trixie-security main\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("sources are %q, want %q in them", got, want)
		}
	}
}

// TestValidity: only the lists of the suite that has no release yet may be old.
func TestValidity(t *testing.T) {
	t.Parallel()
	for _, suite := range []Suite{Bullseye, Bookworm, Trixie, Forky} {
		if old := strings.Contains(suite.options(), "Check-Valid-Until"); old != (suite == Forky) {
			t.Errorf("lists of %s may be old: %v", suite, old)
		}
	}
}

func FuzzParseURIs(f *testing.F) {
	const line = "'http://m.test/pool/libcap2_2.75%2bb3_amd64.deb' libcap2_1%3a2.75-10+deb13u1+b3_amd64.deb 28988 SHA256:00\n"
	f.Add("Reading package lists...\n" + line)
	f.Add("'address'\n")
	f.Add("'address' name.deb\n")
	f.Add("'address' a_%zz_b.deb\n")
	f.Fuzz(func(t *testing.T, out string) {
		closure, err := parseURIs(out)
		if err != nil {
			return
		}
		if lines := strings.Count("\n"+out, "\n'"); len(closure) != lines {
			t.Errorf("parseURIs(%q) = %v, want %d packages", out, closure, lines)
		}
	})
}

func TestParseURIs(t *testing.T) {
	t.Parallel()
	const line = "'http://m.test/pool/libcap2_2.75%2bb3_amd64.deb' libcap2_1%3a2.75-10+deb13u1+b3_amd64.deb 28988 SHA256:00\n"
	got, err := parseURIs("Reading package lists...\nNeed to get 1 B.\n" + line)
	want := Closure{{Name: "libcap2", Version: "1:2.75-10+deb13u1+b3"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parseURIs() = %v, %v, want %v", got, err, want)
	}
	if got := want.Version("libcap2"); got != "1:2.75-10+deb13u1+b3" {
		t.Errorf("Version() = %q", got)
	}
	for _, out := range []string{"'address'\n", "'address' name.deb\n", "'address' a_%zz_b.deb\n"} {
		if got, err := parseURIs(out); err == nil {
			t.Errorf("parseURIs(%q) = %v, want an error", out, got)
		}
	}
}
