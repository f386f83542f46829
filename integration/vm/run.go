// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config says what to run, and in which machine.
type Config struct {
	Kernel Kernel
	Cgroup Cgroup
	Init   Init
	// CPUs is the number of virtual processors. More than one costs time under
	// emulation, and is for finding races.
	CPUs int
	// Memory is as QEMU takes it, for example "2G".
	Memory string
	// Shares are directories, by absolute paths, where the guest's writes reach
	// the host. Everything else that it writes is thrown away.
	Shares []string
	// Append is added to the kernel command line.
	Append []string
	// Timeout is for the guest as a whole, its boot included. Zero is none.
	Timeout time.Duration
	// Argv, Env and Dir are the command, its environment, to which TMPDIR on
	// the scratch disk is added, and its working directory.
	Argv []string
	Env  []string
	Dir  string
	// Stdout and Stderr take the command's output. Its stdin is /dev/null.
	Stdout, Stderr io.Writer
	// Console takes what the guest's kernel and init print. It may be nil.
	Console io.Writer
	// Signals are sent on to the command. It may be nil.
	Signals <-chan os.Signal
}

var (
	// errTimeout means that the guest was ended because its time was over.
	errTimeout = errors.New("timeout")
	// errInterrupted means that the caller wanted an end.
	errInterrupted = errors.New("interrupted")
	// errDied means that the guest ended before the command did.
	errDied = errors.New("virtual machine died")
)

const (
	// bootLimit is for the time until the command starts. It takes 5 s on two
	// idle processors, 15 s with systemd, and several times that on busy ones.
	bootLimit = 5 * time.Minute
	// signalGrace is how long a command has after a signal.
	signalGrace = 10 * time.Second
)

func (c Config) check() error {
	var errs []error
	if !slices.Contains(Kernels, c.Kernel) {
		errs = append(errs, fmt.Errorf("kernel %q is none of %q", c.Kernel, Kernels))
	}
	if c.Cgroup != CgroupV1 && c.Cgroup != CgroupV2 {
		errs = append(errs, fmt.Errorf("cgroup version %q is neither %q nor %q", c.Cgroup, CgroupV2, CgroupV1))
	}
	if c.Init != InitNone && c.Init != InitSystemd {
		errs = append(errs, fmt.Errorf("init %q is neither %q nor %q", c.Init, InitNone, InitSystemd))
	}
	if c.CPUs < 1 {
		errs = append(errs, fmt.Errorf("%d processors, want one or more", c.CPUs))
	}
	if len(c.Argv) == 0 {
		errs = append(errs, errors.New("no command"))
	}
	for _, path := range c.Shares {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("shared directory %q is not absolute", path))
		} else if info, err := os.Stat(path); err != nil || !info.IsDir() {
			errs = append(errs, fmt.Errorf("shared directory %q is no directory", path))
		}
	}
	return errors.Join(errs...)
}

// environment is the command's: the caller's, with temporary files on a file
// system that is not an overlay.
func environment(env []string) []string {
	kept := slices.DeleteFunc(slices.Clone(env), func(setting string) bool {
		return strings.HasPrefix(setting, "TMPDIR=")
	})
	return append(kept, "TMPDIR=/vm/tmp")
}

// Run runs a command in a virtual machine and returns its exit code, which is
// 128 plus the number if a signal ended it. Canceling ctx ends the machine at
// once. Nothing of it is left when Run returns, nor if the caller is killed.
func Run(ctx context.Context, c Config) (int, error) {
	if err := c.check(); err != nil {
		return 0, fmt.Errorf("configure virtual machine: %w", err)
	}
	parts, err := Prepare(ctx, c.Kernel)
	if err != nil {
		return 0, err
	}
	m, err := start(ctx, c, parts)
	if err != nil {
		return 0, fmt.Errorf("start virtual machine: %w", err)
	}
	defer m.end()
	return m.wait(ctx)
}
