// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// AnnotationPrefix starts every annotation that is addressed to isolate.
const AnnotationPrefix = "io.containerd.isolate."

// WithAnnotations returns c with the settings that the annotations of a container ask
// for. It ignores annotations without [AnnotationPrefix]. An annotation with it that
// the administrator does not allow, or that does not exist, is an error that names the
// annotation: a container that has asked for something must not run without it.
func (c Config) WithAnnotations(annotations map[string]string) (Config, error) {
	out := c.clone()
	origins := Origins{}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		short, ours := strings.CutPrefix(name, AnnotationPrefix)
		if !ours {
			continue
		}
		origin := fmt.Sprintf("annotation %q", name)
		refuse := func(format string, args ...any) {
			problems = append(problems, &Error{Origin: origin, Reason: fmt.Sprintf(format, args...)})
		}
		key, known := keyAnnotated(short)
		if !known {
			refuse("unknown%s", DidYouMean(short, annotationNames()))
			continue
		}
		if !slices.Contains(c.Annotations.Allow, short) {
			refuse("not allowed on this host; to allow it add %q to annotations.allow in /etc/isolate/config.toml", short)
			continue
		}
		if err := key.setText(&out, annotations[name]); err != nil {
			refuse("%v", err)
			continue
		}
		origins[key.Name] = origin
	}
	for _, p := range out.problems() {
		if origin, ours := origins[p.Key]; ours {
			problems = append(problems, &Error{Origin: origin, Key: p.Key, Reason: p.Reason})
		}
	}
	if err := errors.Join(problems...); err != nil {
		return Config{}, err
	}
	return out, nil
}

// keyAnnotated returns the entry with an annotation's short name.
func keyAnnotated(short string) (Key, bool) {
	i := slices.IndexFunc(keys, func(k Key) bool { return short != "" && k.Annotation == short })
	if i < 0 {
		return Key{}, false
	}
	return keys[i], true
}

// annotationNames lists the short names, sorted.
func annotationNames() []string {
	var names []string
	for _, k := range keys {
		if k.Annotation != "" {
			names = append(names, k.Annotation)
		}
	}
	slices.Sort(names)
	return names
}
