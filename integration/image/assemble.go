// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Assemble makes an image of files of this machine, on top of another one or of
// nothing: like a build that only copies. files are programs by their absolute
// paths in the image. The archive is written to a path, and is not cached.
func Assemble(ctx context.Context, path, reference string, base Name, files map[string]string, config ocispec.ImageConfig) (_ Image, retErr error) {
	target, err := newArchive(path, reference, &config)
	if err != nil {
		return Image{}, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, target.Close(), os.Remove(path))
		}
	}()
	if base != "" {
		b, err := Get(ctx, base)
		if err != nil {
			return Image{}, err
		}
		if err := target.copyLayers(b.Path, func(io.Reader) error { return nil }); err != nil {
			return Image{}, err
		}
	}
	if err := target.add("copy", func(stream io.Writer) error { return writePrograms(stream, files) }); err != nil {
		return Image{}, err
	}
	return Image{Reference: reference, Path: path}, target.finish()
}

func writePrograms(stream io.Writer, files map[string]string) error {
	archive := tar.NewWriter(stream)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
		relative, err := filepath.Rel("/", name)
		if err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: relative, Mode: 0o755, Size: int64(len(text))}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
		if _, err := archive.Write(text); err != nil {
			return fmt.Errorf("copy program: %w", err)
		}
	}
	return archive.Close()
}
