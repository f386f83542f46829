// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	_ "embed" // the profile
	"strings"
)

// Name is what the profile is called in the kernel.
const Name = "isolate-default"

// File is where hosts keep it, so that it is loaded when they boot.
const File = "/etc/apparmor.d/" + Name

//go:embed isolate-default
var source string

// mark is behind rules that not every parser knows.
const mark = "# if known"

// text returns the profile without those marked rules that a parser does not know,
// and the first error of asking it.
func text(knows func(rule string) (bool, error)) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(source) {
		if rule, marked := strings.CutSuffix(strings.TrimSpace(line), mark); marked {
			ok, err := knows(strings.TrimSpace(rule))
			if err != nil {
				return "", err
			}
			if !ok {
				continue
			}
		}
		b.WriteString(line)
	}
	return b.String(), nil
}

// listed tells whether a list of profiles, as the kernel prints it, has this one.
func listed(profiles string) bool {
	for line := range strings.Lines(profiles) {
		// A name may have spaces in it; the mode is in parentheses at the end.
		name, _, ok := strings.Cut(line, " (")
		if ok && name == Name {
			return true
		}
	}
	return false
}

// Profile is the profile's name in what /proc/PID/attr/current holds: "name
// (mode)". confined is false if that confines nothing.
func Profile(label string) (name string, confined bool) {
	label = strings.TrimRight(label, "\x00\n")
	name, mode, ok := strings.Cut(label, " (")
	// No mode: the label is "unconfined", or of another module.
	return name, ok && mode != "unconfined)" && mode != "complain)"
}
