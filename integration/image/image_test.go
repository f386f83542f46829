// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, layer []byte) map[string]byte {
	t.Helper()
	found := map[string]byte{}
	for reader := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = header.Typeflag
	}
}

func TestWriteChanges(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"same/file", "mode", "text", "gone/a", "gone/b", "gone-not", "linked"} {
		write(t, filepath.Join(root, name), name)
	}
	before, err := look(root)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "text"), "TEXT") // same size
	write(t, filepath.Join(root, "new/file"), "")
	write(t, filepath.Join(root, "proc/1"), "")
	if err := errors.Join(
		os.Chmod(filepath.Join(root, "mode"), 0o600),
		os.RemoveAll(filepath.Join(root, "gone")),
		os.Link(filepath.Join(root, "linked"), filepath.Join(root, "link")),
		os.Symlink("text", filepath.Join(root, "symlink")),
	); err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	if err := writeChanges(&layer, root, before); err != nil {
		t.Fatal(err)
	}
	want := map[string]byte{
		".wh.gone": tar.TypeReg, "mode": tar.TypeReg, "text": tar.TypeReg,
		"new/": tar.TypeDir, "new/file": tar.TypeReg, "proc/": tar.TypeDir,
		"link": tar.TypeReg, "linked": tar.TypeLink, "symlink": tar.TypeSymlink,
	}
	if got := entries(t, layer.Bytes()); !maps.Equal(got, want) {
		t.Errorf("layer has %q, want %q", got, want)
	}
}

func TestArchiveCopies(t *testing.T) {
	t.Parallel()
	make := func(reference, base string, names ...string) string {
		path := filepath.Join(t.TempDir(), "a.tar")
		a, err := newArchive(path, reference, &ocispec.ImageConfig{User: reference})
		if err != nil {
			t.Fatal(err)
		}
		if base != "" {
			visited := 0
			err := a.copyLayers(base, func(layer io.Reader) error {
				visited++
				_, err := io.Copy(io.Discard, layer)
				return err
			})
			if err != nil || visited != 2 {
				t.Fatalf("visited %d layers, %v", visited, err)
			}
		}
		for _, name := range names {
			if err := a.add(name, func(w io.Writer) error { return writeTiny(w, name) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.finish(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := make("base", "", "/1", "/2")
	derived, err := index(make("derived", base, "/3"))
	if err != nil {
		t.Fatal(err)
	}
	var top ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	if err := errors.Join(
		derived.decode("index.json", &top),
		derived.decode(blobPath(top.Manifests[0].Digest), &manifest),
		derived.decode(blobPath(manifest.Config.Digest), &config),
	); err != nil {
		t.Fatal(err)
	}
	if name := top.Manifests[0].Annotations["io.containerd.image.name"]; name != "derived" || config.Config.User != "derived" {
		t.Errorf("image is named %q with user %q", name, config.Config.User)
	}
	var names []string
	for i, layer := range manifest.Layers {
		err := derived.open(blobPath(layer.Digest), func(r io.Reader) error {
			text, err := io.ReadAll(r)
			if digest.FromBytes(text) != layer.Digest || config.RootFS.DiffIDs[i] != layer.Digest {
				t.Errorf("layer %d is not what its digest says", i)
			}
			names = slices.AppendSeq(names, maps.Keys(entries(t, text)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"1", "2", "3"}; !slices.Equal(names, want) {
		t.Errorf("layers hold %q, want %q", names, want)
	}
}

func TestDefinitions(t *testing.T) {
	t.Parallel()
	for _, name := range append(Default[:len(Default):len(Default)], Demo) {
		d, ok := definitions[name]
		if !ok || d.Reference == "" || d.Suite == "" || d.Config == nil {
			t.Errorf("definition of %q is incomplete: %+v", name, d)
		}
	}
	if len(definitions) != len(list) {
		t.Errorf("%d names for %d definitions", len(definitions), len(list))
	}
}
