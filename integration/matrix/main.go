// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/integration/vm"
)

// Main is command vmtest and returns the exit code. Where there can be no virtual
// machines, nothing is run, with one line that says why; ISOLATE_NO_SKIP makes
// that a failure.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	chosen, tests, err := choose(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "vmtest:", err)
		return 2
	}
	for _, l := range chosen {
		if _, err := vm.Prepare(ctx, l.kernel); err != nil {
			fmt.Fprintln(stderr, "vmtest: skipped:", err)
			if rig.NoSkip() {
				return 1
			}
			return 0
		}
	}
	b, err := build(ctx, chosen, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "vmtest:", err)
		return 1
	}
	start := time.Now()
	failed, unsteady := 0, 0
	for _, l := range chosen {
		again, err := b.run(ctx, l, tests, stdout)
		if len(again) > 0 && ctx.Err() == nil {
			unsteady++
			fmt.Fprintf(stdout, "%-28s failed: %v; these run once more, in a new machine: %s\n", l.name(), err, names(again))
			l.suites, l.what = again, strings.TrimPrefix(l.what+"-again", "-")
			again, err = b.run(ctx, l, tests, stdout)
		}
		if err != nil {
			fmt.Fprintf(stdout, "%-28s FAIL %v %s\n", l.name(), err, names(again))
			failed++
		}
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Fprintf(stdout, "%d virtual machines, %d failed, %d with suites that ran twice, %.0f s\n", len(chosen), failed, unsteady, time.Since(start).Seconds())
	if failed > 0 || ctx.Err() != nil {
		return 1
	}
	return 0
}

// choose returns the legs that the arguments choose, and a pattern for tests that
// replaces those of the suites, if there is one.
func choose(args []string, stderr io.Writer) (chosen []leg, tests string, err error) {
	flags := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var kernels, initName, dir string
	flags.StringVar(&kernels, "kernel", "", fmt.Sprintf("only these `series`, separated by commas, of %q", vm.Kernels))
	flags.StringVar(&initName, "init", "", "only machines with this PID 1: `none` or systemd")
	flags.StringVar(&dir, "package", "", "only the tests in this `directory`")
	flags.StringVar(&tests, "run", "", "run these tests instead, by a `pattern`")
	if err := flags.Parse(args); err != nil {
		return nil, "", errors.New("wrong arguments")
	}
	for _, k := range strings.FieldsFunc(kernels, func(r rune) bool { return r == ',' }) {
		if !slices.Contains(vm.Kernels, vm.Kernel(k)) {
			return nil, "", fmt.Errorf("kernel %q is none of %q", k, vm.Kernels)
		}
	}
	for _, l := range legs {
		if kernels != "" && !slices.Contains(strings.Split(kernels, ","), string(l.kernel)) || initName != "" && initName != string(l.init) {
			continue
		}
		if dir != "" {
			l.suites = slices.DeleteFunc(slices.Clone(l.suites), func(s suite) bool { return s.dir != dir })
		}
		if len(l.suites) > 0 {
			chosen = append(chosen, l)
		}
	}
	if len(chosen) == 0 {
		return nil, "", errors.New("no virtual machine is chosen")
	}
	return chosen, tests, nil
}
