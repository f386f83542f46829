// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/isolate-shim/isolate/idmap"
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
var features = map[Requirement]func(dir string) *idmap.Probe{
	MappedMounts:   idmap.MappableAt,
	MappedLayers:   func(dir string) *idmap.Probe { return idmap.OverlayBy(idmap.MethodPrivate, dir) },
	MappedTmpfs:    func(string) *idmap.Probe { return idmap.MappableTmpfs() },
	MountBeneath:   idmap.MountBeneath,
	DetachedLayers: func(dir string) *idmap.Probe { return idmap.OverlayBy(idmap.MethodDetached, dir) },
}

// Since returns the version of Linux that brought each feature, as its probe
// declares it.
func Since() map[Requirement]string {
	versions := map[Requirement]string{}
	for feature, probe := range features {
		versions[feature] = probe("").Version
	}
	return versions
}

// probed holds the probes that were asked, which remember.
var probed = struct {
	sync.Mutex
	probes map[Requirement]*idmap.Probe
}{probes: map[Requirement]*idmap.Probe{}}

// Has tells whether the kernel has a feature, for tests that demand one thing of
// kernels that have it and another of those that do not.
func Has(feature Requirement) (bool, error) {
	missing, err := feature.check()
	return missing == nil && err == nil, err
}

func probe(feature Requirement) *idmap.Probe {
	probed.Lock()
	defer probed.Unlock()
	p, ok := probed.probes[feature]
	if !ok {
		p = features[feature](filepath.Join(Dir(), "test"))
		probed.probes[feature] = p
	}
	return p
}

// checkFeature returns what is missing on an old kernel, and an error if it is
// missing on one that should have it, or cannot be found out.
func checkFeature(feature Requirement) (*lack, error) {
	p := probe(feature)
	err := p.Check()
	// Where there are no id-mapped mounts at all, a probe of what is made of them
	// finds out nothing else.
	if err == nil || !errors.Is(err, idmap.ErrNotSupported) && !errors.Is(err, idmap.ErrNotIDMappable) {
		return nil, err
	}
	old, release, versionErr := olderThan(p.Version)
	if versionErr != nil {
		return nil, versionErr
	}
	if !old {
		return nil, fmt.Errorf("kernel %s should have %s: %w", release, feature, err)
	}
	return &lack{what: "kernel is " + release, ofKernel: true}, nil
}
