// SPDX-License-Identifier: Apache-2.0

package host

import (
	"slices"
	"strconv"
	"strings"
)

// flagValues returns the values of some flags on a command line, in their order.
// Long ones work with one dash as well.
func flagValues(args []string, names ...string) []string {
	var values []string
	for i, arg := range args {
		name, inline, has := strings.Cut(arg, "=")
		if len(name) > 2 && strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "--") {
			name = "-" + name
		}
		switch {
		case !slices.Contains(names, name):
		case has:
			values = append(values, inline)
		case i+1 < len(args):
			values = append(values, args[i+1])
		}
	}
	return values
}

// flagValue returns the last of these values, or value if there is none.
func flagValue(args []string, value string, names ...string) string {
	if values := flagValues(args, names...); len(values) > 0 {
		return values[len(values)-1]
	}
	return value
}

// Version reads the first two numbers of a version, such as "v2.4.2" or
// "26.1.5+dfsg1".
func Version(text string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}
