// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// Features of kernels, as requirements. Whether there is one is found out by doing
// it, with the probe that isolatectl check uses. A kernel that is as new as the one
// that brought it, and lacks it all the same, fails the test.
const (
	MappedMounts   Requirement = "id-mapped mounts"
	MappedLayers   Requirement = "id-mapped overlay layers"
	MappedTmpfs    Requirement = "id-mapped tmpfs"
	MountBeneath   Requirement = "mounting beneath a mount"
	DetachedLayers Requirement = "detached overlay layers"
)

// features have the probes, which get a directory on a disk.
var features = map[Requirement]func(dir string) *feature.Probe{
	MappedMounts:   mount.MappableAt,
	MappedLayers:   func(dir string) *feature.Probe { return rootfs.OverlayBy(rootfs.MethodPrivate, dir) },
	MappedTmpfs:    func(string) *feature.Probe { return mount.MappableTmpfs() },
	MountBeneath:   mount.AttachableBeneath,
	DetachedLayers: func(dir string) *feature.Probe { return rootfs.OverlayBy(rootfs.MethodDetached, dir) },
}

// Since returns the version of Linux that brought each feature, as its probe
// declares it.
func Since() map[Requirement]string {
	versions := map[Requirement]string{}
	for name, probe := range features {
		versions[name] = probe("").Version
	}
	return versions
}

// probed holds the probes that were asked, which remember.
var probed = struct {
	sync.Mutex
	probes map[Requirement]*feature.Probe
}{probes: map[Requirement]*feature.Probe{}}

// Has tells whether the kernel has a feature, for tests that demand one thing of
// kernels that have it and another of those that do not.
func Has(wanted Requirement) (bool, error) {
	missing, err := wanted.check()
	return missing == nil && err == nil, err
}

func probe(wanted Requirement) *feature.Probe {
	probed.Lock()
	defer probed.Unlock()
	p, ok := probed.probes[wanted]
	if !ok {
		p = features[wanted](filepath.Join(Dir(), "test"))
		probed.probes[wanted] = p
	}
	return p
}

// checkFeature returns what is missing on an old kernel, and an error if it is
// missing on one that should have it, or cannot be found out.
func checkFeature(wanted Requirement) (*lack, error) {
	p := probe(wanted)
	err := p.Check()
	// Where there are no id-mapped mounts at all, a probe of what is made of them
	// finds out nothing else.
	if err == nil || !errors.Is(err, feature.ErrNotSupported) && !errors.Is(err, mount.ErrNotIDMappable) {
		return nil, err
	}
	old, release, versionErr := olderThan(p.Version)
	if versionErr != nil {
		return nil, versionErr
	}
	if !old {
		return nil, fmt.Errorf("kernel %s should have %s: %w", release, wanted, err)
	}
	return &lack{what: "kernel is " + release, ofKernel: true}, nil
}
