// SPDX-License-Identifier: Apache-2.0

package arm64

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/rig"
)

const module = "github.com/isolate-shim/isolate/"

// Main is command armtest and returns the exit code. Without the emulator nothing
// is run, with one line that says why; ISOLATE_NO_SKIP makes that a failure.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	if len(args) > 0 {
		fmt.Fprintln(stderr, "usage: armtest")
		return 2
	}
	program, err := emulator(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "armtest: skipped:", err)
		if rig.NoSkip() {
			return 1
		}
		return 0
	}
	if err := run(ctx, program, stdout); err != nil {
		fmt.Fprintln(stderr, "armtest:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, program string, stdout io.Writer) error {
	command := cache.Command{Env: []string{"GOARCH=arm64", "CGO_ENABLED=0"}, Log: stdout}
	list, err := command.Output(ctx, "go", "list", "./...")
	if err != nil {
		return err
	}
	packages := slices.DeleteFunc(strings.Fields(list), func(name string) bool {
		return strings.HasPrefix(name, module+"integration")
	})
	if err := command.Run(ctx, "go", "build", "-o", os.DevNull, "./cmd/..."); err != nil {
		return err
	}
	if err := command.Run(ctx, "go", "vet", "./..."); err != nil {
		return err
	}
	var skipped []string
	for _, name := range slices.Sorted(maps.Keys(unable)) {
		if !slices.Contains(packages, module+name) {
			return fmt.Errorf("package %s is declared and not there", name)
		}
		u := unable[name]
		fmt.Fprintf(stdout, "not under emulation: %s\n", strings.Join(strings.Fields(name+" "+u.tests+": "+u.why), " "))
		if u.tests == "" {
			packages = slices.DeleteFunc(packages, func(p string) bool { return p == module+name })
		} else {
			skipped = append(skipped, u.tests)
		}
	}
	argv := []string{"go", "test", "-count=1", "-timeout=5m", "-exec=" + program, "-skip=" + strings.Join(skipped, "|")}
	return command.Run(ctx, slices.Concat(argv, packages)...)
}
