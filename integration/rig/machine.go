// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
)

// Shim is the shim under test as clients name it.
const Shim = "io.containerd.isolate.v1"

// Machine is a containerd with the shim under test, and its containers and images as
// tests use them.
type Machine struct {
	*Node
	references map[image.Name]string
}

// MachineFor starts a machine for one test, which shows the end of its log if it
// fails.
func MachineFor(t testing.TB, config Config) *Machine {
	t.Helper()
	config.Isolate = true
	return &Machine{Node: Containerd(t, config), references: map[image.Name]string{}}
}

// SharedMachine starts a machine that lives as long as the rig: to start one and to
// import images takes longer than most tests.
func SharedMachine(t testing.TB, config Config) *Machine {
	t.Helper()
	config.Isolate = true
	node, err := StartContainerd(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{Node: node, references: map[image.Name]string{}}
}

// Image returns the reference of an image, which is imported once.
func (m *Machine) Image(t testing.TB, name image.Name) string {
	t.Helper()
	if _, ok := m.references[name]; !ok {
		m.references[name] = m.MustImport(t, name)
	}
	return m.references[name]
}

// Run runs a container to its end. args are flags of ctr run, a reference, an id and
// a command.
func (m *Machine) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return m.Ctr(t.Context(), slices.Concat([]string{"run", "--rm", "--runtime", Shim}, args)...)
}

// StartContainer starts a container that is removed when the test ends.
func (m *Machine) StartContainer(t testing.TB, flags []string, reference, id string, argv ...string) *Container {
	t.Helper()
	c := &Container{Machine: m, ID: id}
	t.Cleanup(func() { c.Remove(t) })
	m.Ctr(t.Context(), slices.Concat([]string{"run", "--detach", "--runtime", Shim}, flags, []string{reference, id}, argv)...).Must(t)
	return c
}

// Layers are the directories of the layers that were unpacked.
func (m *Machine) Layers(t testing.TB) []string {
	t.Helper()
	layers, err := filepath.Glob(filepath.Join(m.Root, "io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("no layers: %v", err)
	}
	return layers
}
