// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	ctrdmount "github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// rounds is how often each root file system is set up.
const rounds = 200

// hostRoot is whom the container's root is on the host.
const hostRoot = idmap.HostID(1879048192)

// overlays measures the set-up of root file systems with some numbers of layers,
// beside containerd's own, which maps no ids.
func overlays() error {
	fmt.Printf("\nroot file system, median of %d; target: 1000 us at 1 layer, 2500 us at 60\n", rounds)
	fmt.Printf("%-10s  %16s  %16s  %16s  %16s\n", "us", "containerd plain", "user namespace", "idmap, detached", "idmap, private")
	for _, layers := range []int{1, 10, 60} {
		d, err := newLayers(layers)
		if err != nil {
			return err
		}
		ways := []func() (time.Duration, error){
			d.plain, namespace,
			func() (time.Duration, error) { return d.mapped(rootfs.MethodDetached) },
			func() (time.Duration, error) { return d.mapped(rootfs.MethodPrivate) },
		}
		columns := make([][]float64, len(ways))
		unsupported := make([]error, len(ways))
		for range rounds {
			for i, way := range ways {
				if unsupported[i] != nil {
					continue
				}
				elapsed, err := way()
				if unbuildable := (*rootfs.UnbuildableError)(nil); errors.As(err, &unbuildable) {
					unsupported[i] = err
					continue
				}
				if err != nil {
					return err
				}
				columns[i] = append(columns[i], float64(elapsed)/float64(time.Microsecond))
			}
		}
		fmt.Printf("%-10s", strconv.Itoa(layers)+" layers")
		for i, c := range columns {
			text := "not supported"
			if unsupported[i] == nil {
				q := quartilesOf(c)
				text = fmt.Sprintf("%.0f [%.0f-%.0f]", q.median, q.low, q.high)
			}
			fmt.Printf("  %16s", text)
		}
		fmt.Println()
	}
	return nil
}

// layers are the directories of an overlay and where it is mounted, as
// containerd's snapshotter has them.
type layers struct {
	lower               []string
	upper, work, target string
}

func newLayers(n int) (layers, error) {
	top := filepath.Join(rig.Dir(), "layers-"+strconv.Itoa(n), "snapshots")
	var d layers
	for i := range n {
		d.lower = append(d.lower, filepath.Join(top, strconv.Itoa(i+1), "fs"))
	}
	last := filepath.Join(top, strconv.Itoa(n+1))
	d.upper, d.work, d.target = filepath.Join(last, "fs"), filepath.Join(last, "work"), filepath.Join(last, "rootfs")
	for _, dir := range append(slices.Clone(d.lower), d.upper, d.work, d.target) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return layers{}, fmt.Errorf("make layers: %w", err)
		}
	}
	return d, nil
}

// plain mounts the way containerd does for other shims.
func (d layers) plain() (time.Duration, error) {
	mounts := []ctrdmount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + strings.Join(d.lower, ":"), "upperdir=" + d.upper, "workdir=" + d.work, "index=off",
	}}}
	start := time.Now()
	if err := ctrdmount.All(mounts, d.target); err != nil {
		return 0, fmt.Errorf("mount: %w", err)
	}
	elapsed := time.Since(start)
	return elapsed, unmount(d.target)
}

// mapped builds and attaches an overlay of idmapped layers. The user namespace
// is the container's, which is there anyway.
func (d layers) mapped(method rootfs.Method) (_ time.Duration, err error) {
	m := idmap.Contiguous(hostRoot, 65536)
	ns, err := userns.New(m)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	o := rootfs.Overlay{Lower: d.lower, Upper: d.upper, Work: d.work, Options: []mount.Option{{Key: "index", Value: "off", HasValue: true}}}
	start := time.Now()
	built, err := o.Build(ns, idmap.Owner{UID: hostRoot, GID: hostRoot}, method)
	if err != nil {
		return 0, err
	}
	err = errors.Join(mount.Attach(built, -1, d.target), built.Close())
	elapsed := time.Since(start)
	if err != nil {
		return 0, err
	}
	return elapsed, unmount(d.target)
}

func namespace() (time.Duration, error) {
	start := time.Now()
	ns, err := userns.New(idmap.Contiguous(hostRoot, 65536))
	if err != nil {
		return 0, err
	}
	elapsed := time.Since(start)
	return elapsed, ns.Close()
}

func unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmount %q: %w", target, err)
	}
	return nil
}
