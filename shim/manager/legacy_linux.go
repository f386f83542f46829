// SPDX-License-Identifier: Apache-2.0

package manager

// This file is for containerd before 2.3, and for dockerd's that bring one. It
// can be deleted, together with package task's v2_linux.go, when those are no
// longer supported.
//
// containerd 2.3 sends the parameters of `start` as protobuf on stdin, and
// pkg/shim of 2.4 refuses every caller that does not (containerd issue #13763).
// Older callers send the task's options, or nothing, and read JSON. They are
// answered with version 2 and get task API v2, because 1.7 knows no other and
// 2.0 to 2.2 still speak it.

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/protobuf/proto"
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
)

// invocation is the part of the shim's command line that start and delete need.
type invocation struct {
	namespace, id, address, bundle, action string
	debug                                  bool
}

// parseInvocation reads the flags that containerd has passed to shims since
// 1.2; others are accepted and ignored.
func parseInvocation(args []string) (invocation, error) {
	var inv invocation
	fs := flag.NewFlagSet("shim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&inv.namespace, "namespace", "", "")
	fs.StringVar(&inv.id, "id", "", "")
	fs.StringVar(&inv.address, "address", "", "")
	fs.StringVar(&inv.bundle, "bundle", "", "")
	fs.BoolVar(&inv.debug, "debug", false, "")
	for _, ignored := range []string{"socket", "debug-socket", "publish-binary"} {
		fs.String(ignored, "", "")
	}
	for _, ignored := range []string{"v", "version", "info"} {
		fs.Bool(ignored, false, "")
	}
	if err := fs.Parse(args); err != nil {
		return inv, err
	}
	inv.action = fs.Arg(0)
	return inv, nil
}

// legacyStart answers a `start` of an old containerd and reports that it did.
// Otherwise it leaves stdin as it was for pkg/shim to read.
func legacyStart(ctx context.Context, m shim.Shim, args []string, stdin *os.File, stdout io.Writer) (bool, error) {
	inv, err := parseInvocation(args)
	if err != nil || inv.action != "start" {
		return false, nil //nolint:nilerr // pkg/shim reports what is wrong with the flags
	}
	input, err := io.ReadAll(io.LimitReader(stdin, maxOptions))
	if err != nil {
		return true, fmt.Errorf("read stdin: %w", err)
	}
	if bootstraps(input, inv) {
		return false, replay(input)
	}
	if os.Getenv(maxVersionEnv) == "" {
		return true, errTooOld
	}
	level := bootapi.LogLevel_LOG_LEVEL_INFO
	if inv.debug {
		level = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	result, err := m.Start(namespaces.WithNamespace(ctx, inv.namespace), &bootapi.BootstrapParams{
		InstanceID:             inv.id,
		Namespace:              inv.namespace,
		LogLevel:               level,
		ContainerdGrpcAddress:  inv.address,
		ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
	})
	if err != nil {
		return true, err
	}
	// containerd 1.7 finds the shim again, after a restart of its own, by what
	// the shim wrote into the bundle, which is the working directory.
	if err := atomicfile.Write("address", []byte(result.Address), 0o644); err != nil {
		return true, err
	}
	answer := struct {
		Version  int    `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}{2, result.Address, result.Protocol}
	return true, json.NewEncoder(stdout).Encode(answer)
}

// maxVersionEnv is what containerd 1.7 and later set for shims.
const maxVersionEnv = "MAX_SHIM_VERSION"

// errTooOld says what is wrong before containerd takes the answer for an address.
var errTooOld = errors.New("isolate needs containerd 1.7 or later, which this one is not (it does not set " + maxVersionEnv + "): upgrade it")

// bootstraps reports whether the input is a bootstrap request. Options of an
// old caller may happen to decode as one, hence the comparison with the flags,
// as in pkg/shim.
func bootstraps(input []byte, inv invocation) bool {
	var params bootapi.BootstrapParams
	return len(input) > 0 && proto.Unmarshal(input, &params) == nil &&
		params.InstanceID == inv.id && params.Namespace == inv.namespace
}

// replay makes os.Stdin yield the input once more.
func replay(input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("replay stdin: %w", err)
	}
	go func() {
		defer w.Close()
		_, _ = w.Write(input) // the reader is this process
	}()
	os.Stdin = r
	return nil
}
