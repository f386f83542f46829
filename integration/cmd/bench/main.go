// SPDX-License-Identifier: Apache-2.0

// Command bench measures isolate beside io.containerd.runc.v2, in one run and on
// one machine: how long a container takes and how much CPU, what containers inside
// it cost, the set-up of a root file system, and the memory of an idle shim.
//
// Both are measured in turns (A B B A), so that whatever else the machine does
// meets both alike; what counts are medians and ratios, never a single time.
// Targets are printed beside what was measured. It never fails because of them:
// a busy machine is no regression.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	upstream = "io.containerd.runc.v2"
	isolate  = "io.containerd.isolate.v1"
)

func main() {
	pairs := flag.Int("pairs", 30, "how many pairs of containers are run for each row")
	only := flag.Bool("chown", false, "measure how long it takes to move ids on disk, and nothing else")
	flag.Parse()
	if *pairs < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	os.Exit(rig.Enter(func() int {
		if err := bench(context.Background(), *pairs, *only); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}))
}

func bench(ctx context.Context, pairs int, onlyChown bool) error {
	if err := machine(); err != nil {
		return err
	}
	if onlyChown {
		return chowns(ctx)
	}
	if err := overlays(); err != nil {
		return err
	}
	lxcfs, err := rig.StartLxcfs(ctx, peer.Lxcfs6, "")
	if err != nil {
		return err
	}
	err = func() error {
		for _, name := range []peer.Name{peer.Runc15, peer.Crun121} {
			if err := withRuntime(ctx, name, pairs); err != nil {
				return err
			}
		}
		return nil
	}()
	return errors.Join(err, lxcfs.Close())
}

// withRuntime measures all that depends on the OCI runtime.
func withRuntime(ctx context.Context, name peer.Name, pairs int) (err error) {
	// Debug messages would be measured too.
	n, err := rig.StartContainerd(ctx, rig.Config{Runc: name, Isolate: true, LogLevel: "info"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	reference, err := n.Import(ctx, image.Demo)
	if err != nil {
		return err
	}
	clock, err := newClock(n.Pid())
	if err != nil {
		return err
	}
	m := &measurement{node: n, image: reference, clock: clock, pairs: pairs}
	if err := m.runs(ctx, string(name)); err != nil {
		return err
	}
	if err := m.nested(ctx, string(name)); err != nil {
		return err
	}
	return m.shims(ctx, string(name))
}

// setting is one way to configure isolate and to run both.
type setting struct {
	nesting, lxcfs string
	// seccomp gives both the default profile of ctr, as Docker and Kubernetes do
	// with theirs. Without it, only isolate has a profile, for nesting.
	seccomp bool
}

var settings = []setting{
	{nesting: "off", lxcfs: "off"},
	{nesting: "off", lxcfs: "auto"},
	{nesting: "full", lxcfs: "off"},
	{nesting: "full", lxcfs: "auto"},
	{nesting: "full", lxcfs: "auto", seccomp: true},
}

func (s setting) String() string {
	text := "nesting " + s.nesting
	if s.lxcfs != "off" {
		text += ", lxcfs"
	}
	if s.seccomp {
		text += ", ctr --seccomp"
	}
	return text
}

// apply writes the configuration that the next container reads.
func (s setting) apply() error {
	text := fmt.Sprintf("nesting = %q\nlxcfs.mode = %q\n", s.nesting, s.lxcfs)
	if err := errors.Join(os.MkdirAll("/etc/isolate", 0o755), os.WriteFile("/etc/isolate/config.toml", []byte(text), 0o644)); err != nil {
		return fmt.Errorf("configure isolate: %w", err)
	}
	return nil
}

func machine() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read kernel release: %w", err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Errorf("read load: %w", err)
	}
	fmt.Printf("Linux %s, %d CPUs, load %s at the start\n", unix.ByteSliceToString(name.Release[:]), runtime.NumCPU(), strings.Fields(string(load))[0])
	return nil
}
