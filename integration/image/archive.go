// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveWriter writes an archive of an OCI image layout with one image. Layers
// are not compressed: they are read often, on the machine that wrote them.
type archiveWriter struct {
	file      *os.File
	writer    *tar.Writer
	reference string
	config    ocispec.Image
	layers    []ocispec.Descriptor
}

func newArchive(path, reference string, config *ocispec.ImageConfig) (*archiveWriter, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make archive: %w", err)
	}
	a := &archiveWriter{file: file, writer: tar.NewWriter(file), reference: reference}
	a.config.Platform = ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	a.config.RootFS.Type = "layers"
	if config != nil {
		a.config.Config = *config
	}
	return a, nil
}

func (a *archiveWriter) Close() error { return a.file.Close() }

// add appends a layer. It goes through a file, since its size and digest come
// before its content.
func (a *archiveWriter) add(comment string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(a.file.Name()), "layer-")
	if err != nil {
		return fmt.Errorf("make layer: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := write(file); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	sum, err := digest.FromReader(file)
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	a.config.History = append(a.config.History, ocispec.History{CreatedBy: comment})
	return a.addLayer(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum, Size: size}, file)
}

func (a *archiveWriter) addLayer(layer ocispec.Descriptor, content io.Reader) error {
	a.layers = append(a.layers, layer)
	a.config.RootFS.DiffIDs = append(a.config.RootFS.DiffIDs, layer.Digest)
	return a.entry(blobPath(layer.Digest), layer.Size, content)
}

// copyLayers appends the layers of another archive, in their order, and shows
// each to a visitor.
func (a *archiveWriter) copyLayers(path string, visit func(io.Reader) error) error {
	blobs, err := index(path)
	if err != nil {
		return err
	}
	var base ocispec.Image
	var manifest ocispec.Manifest
	var top ocispec.Index
	if err := blobs.decode(ocispec.ImageIndexFile, &top); err != nil {
		return err
	}
	if len(top.Manifests) != 1 {
		return fmt.Errorf("read %q: %d images, want one", path, len(top.Manifests))
	}
	if err := errors.Join(
		blobs.decode(blobPath(top.Manifests[0].Digest), &manifest),
		blobs.decode(blobPath(manifest.Config.Digest), &base),
	); err != nil {
		return err
	}
	a.config.History = append(a.config.History, base.History...)
	for _, layer := range manifest.Layers {
		for _, use := range []func(io.Reader) error{
			visit,
			func(content io.Reader) error { return a.addLayer(layer, content) },
		} {
			if err := blobs.open(blobPath(layer.Digest), use); err != nil {
				return fmt.Errorf("copy layer: %w", err)
			}
		}
	}
	return nil
}

// finish writes what refers to the layers.
func (a *archiveWriter) finish() error {
	config, err := a.blob(ocispec.MediaTypeImageConfig, a.config)
	if err != nil {
		return err
	}
	manifest, err := a.blob(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: a.layers,
	})
	if err != nil {
		return err
	}
	manifest.Platform = &a.config.Platform
	manifest.Annotations = map[string]string{
		"io.containerd.image.name": a.reference,
		ocispec.AnnotationRefName:  a.reference,
	}
	// What docker load reads in an archive that is not an image layout to it.
	docker := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(config.Digest), RepoTags: []string{a.reference}}
	for _, layer := range a.layers {
		docker.Layers = append(docker.Layers, blobPath(layer.Digest))
	}
	return errors.Join(
		a.json("manifest.json", []any{docker}),
		a.json(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}),
		a.json(ocispec.ImageIndexFile, ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{manifest},
		}),
		a.writer.Close(),
		a.file.Close(),
	)
}
