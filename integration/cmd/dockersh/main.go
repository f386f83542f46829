// SPDX-License-Identifier: Apache-2.0

// Command dockersh runs a shell script beside a dockerd in a rig, for trying
// things by hand: docker is on the PATH, REF is the image, LOG what dockerd and
// the shims say.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func main() { os.Exit(rig.Enter(body)) }

func body() int {
	if err := try(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0 // dockerd and all else end with the rig
}

func try(ctx context.Context) error {
	config := rig.DockerConfig{
		Dockerd: peer.Name(os.Getenv("RIG_DOCKERD")), Apart: os.Getenv("RIG_APART") != "",
		Config: rig.Config{Isolate: true, Containerd: peer.Name(os.Getenv("RIG_CONTAINERD")), Runc: peer.Name(os.Getenv("RIG_RUNC"))},
	}
	if text := os.Getenv("RIG_DAEMON_JSON"); text != "" {
		if err := json.Unmarshal([]byte(text), &config.Settings); err != nil {
			return fmt.Errorf("RIG_DAEMON_JSON: %w", err)
		}
	}
	d, err := rig.StartDocker(ctx, config)
	if err != nil {
		return err
	}
	if name := os.Getenv("RIG_LXCFS"); name != "" {
		if _, err := rig.StartLxcfs(ctx, peer.Name(name), ""); err != nil {
			return err
		}
	}
	name := image.Name(os.Getenv("RIG_IMAGE"))
	if name == "" {
		name = image.Demo
	}
	reference, err := d.Load(ctx, name)
	if err != nil {
		return err
	}
	client := d.Client()
	log := d.Log
	if d.Containerd != nil {
		log = d.Containerd.Log
	}
	command := exec.Command("bash", "-c", os.Args[len(os.Args)-1])
	command.Env = append(os.Environ(), "PATH="+filepath.Dir(client[0])+":"+d.Bin+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+client[2], "DOCKER_HOST="+client[4],
		"REF="+reference, "LOG="+log, "ROOT="+d.Root)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}
