// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (a *archiveWriter) blob(mediaType string, value any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	descriptor := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return descriptor, a.entry(blobPath(descriptor.Digest), descriptor.Size, bytes.NewReader(text))
}

func (a *archiveWriter) json(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return a.entry(name, int64(len(text)), bytes.NewReader(text))
}

func (a *archiveWriter) entry(name string, size int64, content io.Reader) error {
	if err := a.writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	if _, err := io.Copy(a.writer, content); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

// extents tells where the files of an archive are, so that they can be read in
// any order.
type extents struct {
	path  string
	files map[string]extent
}

type extent struct{ offset, size int64 }

func index(path string) (extents, error) {
	e := extents{path: path, files: map[string]extent{}}
	file, err := os.Open(path)
	if err != nil {
		return e, fmt.Errorf("open archive: %w", err)
	}
	defer file.Close()
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return e, nil
		}
		if err != nil {
			return e, fmt.Errorf("read %q: %w", path, err)
		}
		// The reader takes whole headers and no more from a file it can seek in.
		offset, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return e, fmt.Errorf("read %q: %w", path, err)
		}
		e.files[header.Name] = extent{offset: offset, size: header.Size}
	}
}

func (e extents) open(name string, use func(io.Reader) error) error {
	found, ok := e.files[name]
	if !ok {
		return fmt.Errorf("read %q: it has no %q", e.path, name)
	}
	file, err := os.Open(e.path)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer file.Close()
	return use(io.NewSectionReader(file, found.offset, found.size))
}

func (e extents) decode(name string, value any) error {
	return e.open(name, func(reader io.Reader) error {
		if err := json.NewDecoder(reader).Decode(value); err != nil {
			return fmt.Errorf("decode %q of %q: %w", name, e.path, err)
		}
		return nil
	})
}
