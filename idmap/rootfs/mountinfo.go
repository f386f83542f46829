// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"strings"
)

// parseMountedOverlay parses two fields of an overlay's line in /proc/PID/mountinfo:
// the sixth, the flags of the mount, and the last, the super block options, as the
// kernel writes them: comma separated, with blank, tab, newline, comma, equals sign
// and backslash in values as octal escapes (seq_show_option). A security context may
// be quoted and have plain commas (selinux_sb_show_options). Layers on detached mounts
// appear as paths below those and cannot be found again.
func parseMountedOverlay(mountOptions, superOptions string) (Overlay, error) {
	var options []string
	for _, o := range splitQuoted(superOptions) {
		plain, err := unescapeOctal(o)
		if err != nil {
			return Overlay{}, fmt.Errorf("parse overlay option %q: %w", o, err)
		}
		if plain == "seclabel" {
			continue // tells that files have labels of their own; nobody can set it
		}
		options = append(options, plain)
	}
	overlay, err := parseOverlay(options)
	if err != nil || mountOptions == "" {
		return overlay, err
	}
	// A mount can be read-only although its file system is not.
	for o := range strings.SplitSeq(mountOptions, ",") {
		if f, ok := mountFlags[o]; ok {
			overlay.Attrs = overlay.Attrs&^f.clear | f.set
		}
		overlay.ReadOnly = overlay.ReadOnly || o == "ro"
	}
	return overlay, nil
}

// splitQuoted splits at commas that are not between double quotes.
func splitQuoted(s string) []string {
	var parts []string
	start, quoted := 0, false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
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
