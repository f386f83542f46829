// SPDX-License-Identifier: Apache-2.0

// Package feature finds out what the running kernel can do, by doing it: vendors
// backport features and their reverts. Kernel versions appear in messages only.
package feature

import (
	"errors"
	"fmt"
	"sync"
)

// ErrNotSupported means that the running kernel, as it is built and set
// up, lacks a feature. It is the conclusive negative answer of a [Probe].
var ErrNotSupported = errors.New("not supported")

// Probe finds out whether the running kernel does something, by doing it. The
// shape is that of cilium/ebpf's FeatureTest. Probes serve isolatectl check and the
// requirements of tests. The shim needs none: it does what a container needs, by the
// functions that probes call, and takes the kernel's answer.
type Probe struct {
	// Name says what is probed, to be followed by "not supported".
	Name string
	// Version is the first Linux release known to have it. It is for messages
	// only, never for decisions.
	Version string
	// Fn does it. It returns nil, an error that matches ErrNotSupported, or
	// another one if it could not find out.
	Fn func() error

	mu   sync.Mutex
	done bool
	err  error
}

// Check returns nil if the feature works, an error that matches
// [ErrNotSupported] if it does not, and any other error if that could not be
// found out. Only the first two are remembered.
func (p *Probe) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return p.err
	}
	err := p.Fn()
	switch {
	case err == nil:
		p.done = true
		return nil
	case errors.Is(err, ErrNotSupported):
		p.done = true
		p.err = fmt.Errorf("%s (since Linux %s): %w", p.Name, p.Version, err)
		return p.err
	}
	return fmt.Errorf("probe %s: %w", p.Name, err)
}
