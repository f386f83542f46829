// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// source has sets of the files of an lxcfs to give away.
type source struct {
	cfg    config.LXCFS
	probe  *lxcfs.Probe // the last one, nil for none
	result lxcfs.Result
	err    error
}

// sourceKey is what a probe depends on.
type sourceKey struct {
	path      string
	timeoutMS uint32
}

func (p *pass) source(cfg config.LXCFS) *source {
	key := sourceKey{cfg.Path, cfg.TimeoutMS}
	if p.sources[key] == nil {
		cfg.Mode = config.LXCFSAuto
		p.sources[key] = &source{cfg: cfg}
	}
	return p.sources[key]
}

// take returns a set that the caller closes. Linux 6.15 and later clone a detached
// mount; before that each set takes a probe.
func (s *source) take(ctx context.Context) ([]lxcfs.File, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.probe == nil {
		if lxcfs.Waiting(s.cfg.Path) {
			s.err = lxcfs.ErrHung
			return nil, s.err
		}
		s.probe = lxcfs.StartProbe(ctx, s.cfg)
		if s.result, s.err = s.probe.Result(); s.err != nil {
			return nil, s.err
		}
	}
	files, err := lxcfs.CloneFiles(s.result.Files)
	if errors.Is(err, unix.EINVAL) {
		s.probe = nil // the caller gets what it found
		return s.result.Files, nil
	}
	s.err = err
	return files, err
}

func (s *source) close() {
	if s.probe != nil {
		s.probe.Close()
	}
}
