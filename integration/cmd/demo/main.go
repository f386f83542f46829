// SPDX-License-Identifier: Apache-2.0

// Command demo shows what one ordinary image sees under io.containerd.runc.v2
// and under io.containerd.isolate.v1, side by side, and then Docker running in
// the latter. It gets and starts everything it needs by itself, in a rig that
// leaves nothing behind, and fails if what it shows is not what isolate
// promises.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func main() { os.Exit(rig.Enter(body)) }

func body() int {
	if err := demo(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

const (
	upstream = "io.containerd.runc.v2"
	isolate  = "io.containerd.isolate.v1"
)

func demo(ctx context.Context) (err error) {
	progress("getting containerd, runc, lxcfs and images, and building isolate (minutes the first time, then seconds)")
	if err := get(ctx); err != nil {
		return err
	}
	progress("starting containerd and lxcfs")
	node, err := rig.StartContainerd(ctx, rig.Config{Containerd: peer.Containerd24, Runc: peer.Runc15, Isolate: true, LogLevel: "info"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()
	lxcfs, err := rig.StartLxcfs(ctx, peer.Lxcfs6, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lxcfs.Close()) }()
	progress("importing an ordinary Debian image")
	s := &stage{node: node}
	if s.image, err = node.Import(ctx, image.Demo); err != nil {
		return err
	}
	before, err := rig.Snapshot()
	if err != nil {
		return err
	}
	if err := sideBySide(ctx, s); err != nil {
		return err
	}
	if err := docker(ctx, s); err != nil {
		return err
	}
	if err := clean(before); err != nil {
		return err
	}
	progress("done: all is as promised, and the containers have left nothing behind")
	return nil
}

// get makes everything that takes long when it is not there yet, and at once:
// building containerd keeps the processors busy, packages the network.
func get(ctx context.Context) error {
	var group errgroup.Group
	for _, name := range []image.Name{image.Demo, image.Docker26, image.Inner} {
		group.Go(func() error { _, err := image.Get(ctx, name); return err })
	}
	for _, name := range []peer.Name{peer.Containerd24, peer.Runc15, peer.Lxcfs6} {
		group.Go(func() error { _, err := peer.Get(ctx, name); return err })
	}
	group.Go(func() error { _, err := rig.Built(ctx); return err })
	return group.Wait()
}

// kept is what isolate remembers beyond a container: which ids were given out,
// what the runtime can do.
const kept = " file /run/isolate/."

// clean waits until nothing is left of the containers.
func clean(before rig.Leftovers) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := rig.Snapshot()
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(before.Diff(after), func(line string) bool { return strings.Contains(line, kept) })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the containers have left behind:\n%s", strings.Join(left, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
