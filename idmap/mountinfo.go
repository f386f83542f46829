// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"fmt"
	"strings"
)

// ParseOverlayMountinfo parses the last field of an overlay's line in
// /proc/PID/mountinfo, the super block options, as the kernel writes it: comma
// separated, with blank, tab, newline, comma, equals sign and backslash in
// values as octal escapes (seq_show_option). Layers on detached mounts appear
// as paths below those and cannot be found again.
func ParseOverlayMountinfo(superOptions string) (Overlay, error) {
	var options []string
	for o := range strings.SplitSeq(superOptions, ",") {
		plain, err := unescapeOctal(o)
		if err != nil {
			return Overlay{}, fmt.Errorf("parse overlay option %q: %w", o, err)
		}
		options = append(options, plain)
	}
	return ParseOverlay(options)
}

// unescapeOctal resolves the kernel's \ooo escapes.
func unescapeOctal(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 >= len(s) {
			return "", fmt.Errorf("cut off escape %q", s[i:])
		}
		var c int
		for _, d := range s[i+1 : i+4] {
			if d < '0' || d > '7' {
				return "", fmt.Errorf("bad escape %q", s[i:i+4])
			}
			c = c<<3 | int(d-'0')
		}
		if c > 0xff {
			return "", fmt.Errorf("bad escape %q", s[i:i+4])
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String(), nil
}
