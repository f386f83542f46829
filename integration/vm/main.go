// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes of [Main] itself, as timeout(1) and container tools have them.
const (
	exitUsage   = 2
	exitTimeout = 124
	exitDied    = 125
)

// Main is command vmrun: it runs what its arguments say and returns the exit
// code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	complaints := log.New(stderr, "vmrun: ", 0)
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitUsage
	}
	if err != nil {
		complaints.Print(err)
		return exitUsage
	}
	c.Env, c.Stdout, c.Stderr = os.Environ(), stdout, stderr
	if c.Dir, err = os.Getwd(); err != nil {
		complaints.Print(err)
		return exitDied
	}
	// What go test sends to a test that takes too long is SIGQUIT.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)
	c.Signals = signals
	code, err := Run(ctx, c)
	if err == nil {
		return code
	}
	complaints.Print(err)
	if errors.Is(err, errTimeout) {
		return exitTimeout
	}
	return exitDied
}

// list is a flag that can be given several times.
type list []string

func (l *list) String() string { return fmt.Sprint(*l) }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func parse(args []string, stderr io.Writer) (Config, error) {
	flags := flag.NewFlagSet("vmrun", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		log.New(stderr, "", 0).Print("usage: vmrun [flags] -- command [argument...]")
		flags.PrintDefaults()
	}
	var c Config
	var shares, parameters list
	var seconds float64
	var verbose bool
	flags.StringVar((*string)(&c.Kernel), "kernel", string(Linux612), fmt.Sprintf("`series` of the kernel: one of %q", Kernels))
	flags.StringVar((*string)(&c.Cgroup), "cgroup", string(CgroupV2), "`version` of control groups: v2 or v1")
	flags.StringVar((*string)(&c.Init), "init", string(InitNone), "PID 1: `none` or systemd")
	flags.IntVar(&c.CPUs, "smp", 1, "`number` of virtual processors")
	flags.StringVar(&c.Memory, "mem", "2G", "`size` of memory")
	flags.Var(&shares, "share", "`directory` where what the guest writes is kept; can be repeated")
	flags.Var(&parameters, "append", "kernel `parameter`; can be repeated")
	flags.Float64Var(&seconds, "timeout", 0, "`seconds` after which the command is ended; 0 is never")
	flags.BoolVar(&verbose, "verbose", false, "show the guest's console on stderr")
	if err := flags.Parse(args); err != nil {
		return Config{}, err
	}
	for _, share := range shares {
		path, err := filepath.Abs(share)
		if err != nil {
			return Config{}, fmt.Errorf("find shared directory: %w", err)
		}
		c.Shares = append(c.Shares, path)
	}
	c.Append, c.Argv = parameters, flags.Args()
	c.Timeout = time.Duration(seconds * float64(time.Second))
	if verbose {
		c.Console = stderr
		c.Append = append(c.Append, "systemd.show_status=1")
	}
	return c, c.check()
}
