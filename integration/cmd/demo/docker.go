// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/integration/image"
)

// docker runs Docker in a container, and a container in that.
func docker(ctx context.Context, s *stage) (err error) {
	progress("importing an image with Docker, of Debian 13")
	reference, err := s.node.Import(ctx, image.Docker26)
	if err != nil {
		return err
	}
	inner, err := image.Get(ctx, image.Inner)
	if err != nil {
		return err
	}
	progress("running Docker in a container")
	fmt.Println()
	const name = "docker"
	args := []string{"--runtime", isolate, "--memory-limit", "1073741824"}
	mount := func(source string) []string {
		return []string{"--mount", "type=bind,src=" + source + ",dst=/image.tar,options=rbind:ro"}
	}
	say(slices.Concat([]string{"run", "-d"}, args, mount("image.tar"), []string{reference, name, "dockerd"})...)
	if err := s.run(ctx, slices.Concat(args, mount(inner.Path), []string{reference, name, "dockerd"})...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove(ctx, name)) }()
	for _, step := range []struct{ script, want string }{
		{"until docker version >/dev/null 2>&1; do sleep 0.1; done", ""},
		{"docker info -f '{{.Driver}}'", "overlay2"},
		{"docker load -q -i /image.tar", "Loaded image: " + strings.TrimPrefix(inner.Reference, "docker.io/")},
		{"docker run --rm -m 128m local/inner:1 grep MemTotal /proc/meminfo", "MemTotal:         131072 kB"},
		{"docker run --rm local/inner:1 grep MemTotal /proc/meminfo", "MemTotal:        1048576 kB"},
	} {
		sayExec(name, step.script)
		r := s.exec(ctx, name, step.script)
		seen := strings.TrimSpace(r.Stdout)
		if seen != "" {
			fmt.Println(seen)
		}
		if err := r.Err(); err != nil {
			return err
		}
		if strings.Join(strings.Fields(seen), " ") != strings.Join(strings.Fields(step.want), " ") {
			return fmt.Errorf("%s: want %q", step.script, step.want)
		}
	}
	fmt.Println()
	return nil
}
