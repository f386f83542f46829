// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/shim/config"
)

// setting is one key with its effective value, as printed.
type setting struct {
	Key         string   `json:"key"`
	Value       any      `json:"value"`
	Origin      string   `json:"origin"`
	Type        string   `json:"type"`
	Values      []string `json:"values,omitempty"`
	Annotation  string   `json:"annotation,omitempty"`
	Description string   `json:"description"`
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print each setting, its effective value and where that was set",
		Description: "Shows the host's files: config.toml and config.d/*.toml in the configuration directory.\n" +
			"A caller's options and a container's annotations come on top, for that container.",
		Flags:  append(flags(), &cli.BoolFlag{Name: "describe", Aliases: []string{"d"}, Usage: "print what each setting means"}),
		Before: noArguments,
		Action: func(_ context.Context, c *cli.Command) error {
			settings, err := settings(c.String("config-dir"))
			if err != nil {
				return err
			}
			w := c.Root().Writer
			if c.Bool("json") {
				return printJSON(w, settings)
			}
			return writeSettings(w, settings, c.Bool("describe"))
		},
	}
}

func settings(dir string) ([]setting, error) {
	cfg, origins, err := config.Load(dir)
	if err != nil {
		return nil, err
	}
	var out []setting
	for _, k := range config.Keys() {
		s := setting{
			Key: k.Name, Value: k.Get(cfg), Origin: cmp.Or(origins[k.Name], "default"), Type: k.Type(), Values: k.Values, Description: k.Doc,
		}
		if k.Annotation != "" {
			s.Annotation = config.AnnotationPrefix + k.Annotation
		}
		out = append(out, s)
	}
	return out, nil
}

// writeSettings prints lines that could be pasted into config.toml: a JSON value
// of these types is a TOML value.
func writeSettings(w io.Writer, settings []setting, describe bool) error {
	lines := make([]string, len(settings))
	width := 0
	for i, s := range settings {
		value, err := json.Marshal(s.Value)
		if err != nil {
			return fmt.Errorf("print %s: %w", s.Key, err)
		}
		if string(value) == "null" {
			value = []byte("[]")
		}
		lines[i] = s.Key + " = " + string(value)
		width = max(width, min(len(lines[i]), 48))
	}
	var b strings.Builder
	for i, s := range settings {
		if describe {
			if i > 0 {
				b.WriteByte('\n')
			}
			for _, line := range wrap(s.Description, 78) {
				fmt.Fprintf(&b, "# %s\n", line)
			}
			if len(s.Values) > 0 {
				fmt.Fprintf(&b, "# Values: %s\n", strings.Join(s.Values, ", "))
			}
			if s.Annotation != "" {
				fmt.Fprintf(&b, "# Annotation, if allowed: %s\n", s.Annotation)
			}
		}
		fmt.Fprintf(&b, "%-*s  # %s\n", width, lines[i], s.Origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks a text into lines of at most width bytes, where it has spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
