// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// sockets lists the addresses that the bundle's shim served: the one containerd
// knows first. args are those of this process.
func sockets(ctx context.Context, bundle string, args []string) []string {
	address := socketAddress(bundle)
	if address == "" {
		address = usualAddress(ctx, bundle, args)
	}
	if address == "" {
		return nil
	}
	if debug := debugAddress(ctx, bundle, address, args); debug != "" {
		return []string{address, debug}
	}
	return []string{address}
}

// How long the end of a shim may take that served this container alone. containerd
// calls delete when it has lost the connection; but a child that the shim was
// just making, a copy of itself, keeps the listening socket for a moment longer.
const (
	endPause    = 10 * time.Millisecond
	endPatience = 500 * time.Millisecond
)

// removeStale removes the sockets of a shim, unless it lives: that of a pod
// lives on after one of its containers. own tells that the shim is named after
// this container, so that it is about to end.
func removeStale(ctx context.Context, addresses []string, own bool) {
	if len(addresses) == 0 {
		return
	}
	for deadline := time.Now().Add(endPatience); listens(addresses[0]); time.Sleep(endPause) {
		if !own || time.Now().After(deadline) {
			return
		}
	}
	for _, a := range addresses {
		if err := shim.RemoveSocket(a); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.G(ctx).WithError(err).Warn("remove socket of dead shim")
		}
	}
}

// listens tells whether somebody has a socket. Where nobody has, connect(2) is refused at
// once. Anything else is no sign of that, such as a shim or a machine that is too busy to
// answer in time ([shim.CanConnect] waits 100 ms).
func listens(address string) bool {
	conn, err := shim.AnonDialer(address, endPatience)
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// isOwn tells whether the bundle's shim is named after its container and not
// after a group.
func isOwn(bundle string) bool { return len(groups(bundle)) == 1 }

// socketAddress reads where the bundle's shim was reached: containerd 2 writes
// bootstrap.json, containerd 1.7 the file "address".
func socketAddress(bundle string) string {
	var bootstrap struct {
		Address string `json:"address"`
	}
	if data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json")); err == nil && json.Unmarshal(data, &bootstrap) == nil {
		return bootstrap.Address
	}
	address, err := shim.ReadAddress(filepath.Join(bundle, "address"))
	if err != nil {
		return ""
	}
	return address
}

// usualAddress is where the shim of a container is reached that is in no group, on
// a host that configures no directory for sockets. It is all there is to go by
// when containerd has removed the bundle already, after a create that failed.
func usualAddress(ctx context.Context, bundle string, args []string) string {
	inv, err := parseInvocation(args)
	if err != nil {
		return ""
	}
	address, err := shim.SocketAddress(ctx, inv.address, filepath.Base(bundle), false)
	if err != nil {
		return ""
	}
	return address
}

// debugAddress is the second socket, for profiles, of a shim that a containerd
// in debug mode has started. It is written down nowhere, so it is computed as
// upstream does; "" unless the same computation yields the address of the first.
func debugAddress(ctx context.Context, bundle, address string, args []string) string {
	inv, err := parseInvocation(args)
	if err != nil {
		return ""
	}
	dir := filepath.Dir(strings.TrimPrefix(address, "unix://"))
	for _, group := range groups(bundle) {
		main, err := shim.CreateSocketAddress(ctx, dir, inv.address, group, false)
		if err != nil || main != address {
			continue
		}
		debug, err := shim.CreateSocketAddress(ctx, dir, inv.address, group, true)
		if err != nil {
			return ""
		}
		return debug
	}
	return ""
}

// groups are the names that a bundle's shim may have gone by.
func groups(bundle string) []string {
	names := []string{filepath.Base(bundle)}
	annotations := annotationsOf(bundle)
	for _, label := range groupLabels {
		if name, ok := annotations[label]; ok {
			names = append(names, name)
		}
	}
	return names
}
