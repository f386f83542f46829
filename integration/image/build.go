// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

var errNotRoot = errors.New("images can only be made by root, since they hold files of several owners")

func (d Definition) make(ctx context.Context, w cache.Work) error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	target, err := newArchive(filepath.Join(w.Dir, archiveName), d.Reference, d.Config)
	if err != nil {
		return err
	}
	defer target.Close() //nolint:errcheck // finished before, or an error is reported
	root := filepath.Join(filepath.Dir(w.Dir), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if d.Base != "" {
		if err := d.copyBase(ctx, target, root); err != nil {
			return err
		}
	}
	for i, layer := range d.Layers {
		before, err := look(root)
		if err != nil {
			return err
		}
		if err := layer.apply(ctx, d.Suite, root, w.Log); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		if err := target.add(describe(layer), func(stream io.Writer) error { return writeChanges(stream, root, before) }); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	for i := range d.Tiny {
		name := fmt.Sprintf("/srv/layers/%d", i+1)
		if err := target.add("tiny", func(stream io.Writer) error { return writeTiny(stream, name) }); err != nil {
			return err
		}
	}
	if d.Many > 0 {
		if err := target.add("many", func(stream io.Writer) error { return writeMany(stream, d.Many) }); err != nil {
			return err
		}
	}
	return target.finish()
}

// copyBase takes the layers of the base over and, if more is to be installed on
// them, unpacks them.
func (d Definition) copyBase(ctx context.Context, target *archiveWriter, root string) error {
	base, err := Get(ctx, d.Base)
	if err != nil {
		return err
	}
	return target.copyLayers(base.Path, func(layer io.Reader) error {
		if len(d.Layers) == 0 {
			return nil
		}
		_, err := archive.Apply(ctx, root, layer)
		return err
	})
}

func (l Layer) apply(ctx context.Context, suite apt.Suite, root string, log io.Writer) error {
	if len(l.Packages) > 0 {
		if err := apt.Install(ctx, suite, root, log, l.Packages...); err != nil {
			return err
		}
	}
	if len(l.Unpacked) > 0 {
		if err := unpack(ctx, suite, root, l.Unpacked); err != nil {
			return err
		}
	}
	for name, text := range l.Files {
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			return fmt.Errorf("write %q: %w", name, err)
		}
	}
	for _, argv := range l.Run {
		if err := apt.Chroot(ctx, root, log, argv...); err != nil {
			return err
		}
	}
	return l.clean(root)
}

func unpack(ctx context.Context, suite apt.Suite, root string, packages []string) error {
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make root: %w", err)
		}
	}
	archives, err := os.MkdirTemp(filepath.Dir(root), "archives-")
	if err != nil {
		return fmt.Errorf("make archive directory: %w", err)
	}
	defer os.RemoveAll(archives)
	debs, err := apt.Download(ctx, suite, "", archives, packages...)
	if err != nil {
		return err
	}
	return apt.Unpack(ctx, root, debs...)
}

// clean removes what package managers leave in an image that nobody ships.
func (l Layer) clean(root string) error {
	for _, pattern := range []string{
		"usr/share/doc/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*",
		"var/cache/apt", "var/cache/debconf/*-old", "var/lib/dpkg/*-old", "var/log/*.log", "var/log/apt", "tmp/*", "run/*",
	} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("clean: %w", err)
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("clean: %w", err)
			}
		}
	}
	return nil
}

func describe(l Layer) string {
	if len(l.Packages) > 0 {
		return "install " + strings.Join(l.Packages, " ")
	}
	return fmt.Sprintf("%d files, %d commands", len(l.Files), len(l.Run))
}
