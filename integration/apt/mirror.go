// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"context"
	"errors"
	"strings"

	"github.com/isolate-shim/isolate/integration/cache"
)

// Suite is a Debian release by its code name.
type Suite string

// The releases that the tests take programs and kernels from.
const (
	Bullseye Suite = "bullseye"
	Bookworm Suite = "bookworm"
	Trixie   Suite = "trixie"
	Forky    Suite = "forky" // testing until 2027
)

// options are the settings of apt that a suite needs besides.
func (s Suite) options() string {
	if s != Forky {
		return ""
	}
	// The lists of a suite under development are only valid for a week, so that a
	// mirror that is behind, or a clock that is ahead, makes apt refuse them. Those of
	// a release stay valid. That old lists could be replayed is no danger to machines
	// that are thrown away; the signatures are checked all the same.
	return "Acquire::Check-Valid-Until \"false\";\n"
}

// mirror holds the addresses of Debian's archives.
type mirror struct {
	main     string
	security string // empty if the machine has no such source
}

var errNoMirror = errors.New("no Debian archive among the machine's apt sources; add one to /etc/apt/sources.list.d")

// findMirror asks apt which archives it uses, since apt reads all forms of
// source lists and a second reader of them would be one too many.
func findMirror(ctx context.Context) (mirror, error) {
	out, err := cache.Command{}.Output(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return mirror{}, err
	}
	return chooseMirror(out)
}

// chooseMirror picks the archives from lines of "address release component".
func chooseMirror(targets string) (mirror, error) {
	var m mirror
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "main" {
			continue
		}
		release, security := strings.CutSuffix(fields[1], "-security")
		switch {
		case !debianReleases[release]:
		case security && m.security == "":
			m.security = fields[0]
		case !security && m.main == "":
			m.main = fields[0]
		}
	}
	if m.main == "" {
		return mirror{}, errNoMirror
	}
	return m, nil
}

// debianReleases are the names under which a machine may follow Debian. A
// derivative with names of its own does not carry Debian's packages.
var debianReleases = map[string]bool{
	"bullseye": true, "bookworm": true, "trixie": true, "forky": true, "sid": true,
	"oldoldstable": true, "oldstable": true, "stable": true, "testing": true, "unstable": true,
}

func (m mirror) sources(s Suite) string {
	const source = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
	list := source + m.main + " " + string(s) + " main\n"
	if m.security != "" {
		list += source + m.security + " " + string(s) + "-security main\n"
	}
	return list
}
