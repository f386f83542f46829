// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// OverlayBy probes whether a writable overlay can be built by the given method
// from id-mapped layers on the file system that holds dir, an existing
// directory in which the probe may make a temporary one. Answers for a file
// system that takes no mapping are inconclusive: they say nothing about
// overlays.
func OverlayBy(method Method, dir string) *feature.Probe {
	version := "5.19"
	if method == MethodDetached {
		version = "6.15"
	}
	name := fmt.Sprintf("overlay of id-mapped layers in %q by method %s", dir, method)
	return &feature.Probe{Name: name, Version: version, Fn: func() error {
		return userns.Try(func(ns *os.File) error { return tryOverlay(ns, method, dir) })
	}}
}

func tryOverlay(ns *os.File, method Method, dir string) (retErr error) {
	tmp, err := os.MkdirTemp(dir, ".isolate-probe-")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, os.RemoveAll(tmp)) }()
	o := Overlay{
		Lower: []string{filepath.Join(tmp, "lower")},
		Upper: filepath.Join(tmp, "upper"),
		Work:  filepath.Join(tmp, "work"),
	}
	for _, d := range []string{o.Lower[0], o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	m, err := o.Build(ns, userns.Root(), method)
	if err == nil {
		return m.Close()
	}
	if refused(err) || errors.Is(err, unix.ENODEV) || errors.Is(err, mount.ErrNotIDMappable) && !mount.MapsIDs() {
		return fmt.Errorf("%w: %w", feature.ErrNotSupported, err)
	}
	return err
}
