// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/isolate-shim/isolate/shim/temporary"
)

// timeout bounds one execution of the runtime. A machine takes tens of milliseconds,
// and one with ten times more to do than it can several seconds; a runtime that takes
// longer waits for something.
const timeout = 20 * time.Second

// maxOutput bounds what is read of an answer; runc's features are 5 KB.
const maxOutput = 1 << 20

// Inspect returns what the runtime at an absolute path says of itself, from the
// cache if the file has not changed since it was asked.
func (f Finder) Inspect(ctx context.Context, path string) (Binary, error) {
	id, err := identify(path)
	if err != nil {
		return Binary{}, fmt.Errorf("inspect runtime: %w", err)
	}
	if b, ok := read(f.CacheDir, id); ok {
		return b, nil
	}
	b, err := ask(ctx, path)
	if err != nil {
		return Binary{}, fmt.Errorf("inspect runtime %q: %w", path, err)
	}
	// Without a cache every container pays for asking, and nothing else.
	if err := write(f.CacheDir, id, b); err != nil {
		log.G(ctx).WithError(err).Warnf("isolate: what %q can do is not remembered", path)
	}
	return b, nil
}

// ask executes the runtime twice.
func ask(ctx context.Context, path string) (Binary, error) {
	b := Binary{Path: path}
	printed, err := run(ctx, path, "--version")
	if err != nil {
		return Binary{}, fmt.Errorf("--version: %w", err)
	}
	b.Name, b.Version, b.SpecVersion = parseVersion(string(printed))

	// crun before 1.9 and runc before 1.1 have no such command: they print an
	// error and exit with 1, or print their help and exit with 0. That is an
	// answer; only silence is not.
	printed, err = run(ctx, path, "features")
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return Binary{}, fmt.Errorf("features: %w", err)
	}
	if f, ok := parseFeatures(printed); ok && err == nil {
		b.Features, b.SpecVersion = f, f.OCIVersionMax
	}
	return b, nil
}

// parseFeatures tells features from other output.
func parseFeatures(printed []byte) (*features.Features, bool) {
	var f features.Features
	if json.Unmarshal(printed, &f) != nil || f.OCIVersionMax == "" {
		return nil, false
	}
	return &f, true
}

// run returns what a command prints on stdout.
//
// In the shim a SIGCHLD handler reaps all children, so waiting for this one may
// end in ECHILD: then nobody knows the exit status, and whether the output makes
// sense has to do.
func run(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = temporary.Environ(os.Environ())
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A grandchild that keeps the pipes open must not outlast the timeout.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("no answer within %v: %w", timeout, ctx.Err())
	}
	if errors.Is(err, syscall.ECHILD) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err == nil && stdout.buf.Len() == 0 {
		err = errors.New("no output")
	}
	if err != nil {
		if said := strings.TrimSpace(stderr.buf.String()); said != "" {
			return nil, fmt.Errorf("%w: %s", err, firstLine(said))
		}
		return nil, err
	}
	return stdout.buf.Bytes(), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// limited is a buffer that drops what exceeds maxOutput; the command must not
// see an error, and not fill memory either. The buffer is not embedded: its
// ReadFrom would go round the limit.
type limited struct{ buf bytes.Buffer }

// Write never fails.
func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
