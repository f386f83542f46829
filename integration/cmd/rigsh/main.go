// SPDX-License-Identifier: Apache-2.0

// Command rigsh runs a shell script beside a containerd in a rig, for trying
// things by hand: CTR is the ctr command line, RUNTIME_ENV picks the peers.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func main() { os.Exit(rig.Enter(body)) }

func body() int {
	ctx := context.Background()
	env := func(key, def string) string {
		if v := os.Getenv(key); v != "" {
			return v
		}
		return def
	}
	n, err := rig.StartContainerd(ctx, rig.Config{
		Isolate: true, Containerd: peer.Name(env("RIG_CONTAINERD", string(peer.Containerd24))),
		Runc: peer.Name(env("RIG_RUNC", string(peer.Runc15))), Snapshotter: os.Getenv("RIG_SNAPSHOTTER"),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Getenv("RIG_LXCFS") != "" {
		l, err := rig.StartLxcfs(ctx, peer.Name(os.Getenv("RIG_LXCFS")), "")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer l.Close()
	}
	ref, err := n.Import(ctx, image.Name(env("RIG_IMAGE", string(image.Demo))))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command("bash", "-c", os.Args[len(os.Args)-1])
	cmd.Env = append(os.Environ(), "CTR="+n.Ctr(ctx, "version").Argv[0], "PATH="+n.Bin+":"+os.Getenv("PATH"), "CONTAINERD_ADDRESS="+n.Address, "REF="+ref, "LOG="+n.Log, "ROOT="+n.Root, "STATE="+n.State)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
