// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
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
			"A caller's options and a container's annotations come on top, for that container. If the files are wrong,\n" +
			"--describe prints the defaults, and what is wrong.",
		Flags:  append(flags(), &cli.BoolFlag{Name: "describe", Aliases: []string{"d"}, Usage: "print what each setting means"}),
		Before: noArguments,
		Action: func(_ context.Context, c *cli.Command) error {
			settings, wrong := settings(c.String("config-dir"))
			describe := c.Bool("describe")
			if wrong != nil && !describe {
				return wrong
			}
			// Whoever mends a configuration needs to know what there is.
			w, write := c.Root().Writer, printJSON
			if !c.Bool("json") {
				write = func(w io.Writer, _ any) error { return writeSettings(w, settings, describe) }
			}
			return errors.Join(write(w, settings), wrong)
		},
	}
}

// settings are those in effect; the defaults, beside the error, if the configuration is
// wrong.
func settings(dir string) ([]setting, error) {
	cfg, origins, err := config.Load(dir)
	if err != nil {
		cfg, origins = config.Default(), nil
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
	return out, err
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
			for _, line := range check.Wrap(s.Description, 78) {
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
