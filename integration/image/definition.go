// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

// Name is the name of a definition.
type Name string

// Definition says what an image is made of.
type Definition struct {
	Name Name
	// Reference is what the image is called once it is imported.
	Reference string
	// Base is an image whose layers come first.
	Base Name
	// Suite is where packages come from; that of Base by default.
	Suite apt.Suite
	// Layers are made one after the other.
	Layers []Layer
	// Tiny is how many layers with one small file each come last.
	Tiny int
	// Many is how many small files, a hundred in a directory, a layer after
	// those has.
	Many int
	// Config is how the image runs; that of Base by default.
	Config *ocispec.ImageConfig
}

// Layer is one step in making an image. A layer holds all that the step has
// changed, in the order of the fields.
type Layer struct {
	// Packages are installed, with all they depend on.
	Packages []string
	// Unpacked are packages that need no other, unpacked and not installed, for
	// an image that holds nothing else.
	Unpacked []string
	// Files are written with mode 0644, or 0755 if they begin with "#!", and
	// owned by root; their keys are absolute paths.
	Files map[string]string
	// Run are programs run in the image's root.
	Run [][]string
}

// Image is an image ready to be imported.
type Image struct {
	Reference string
	// Path is an archive of an OCI image layout which docker load reads too.
	Path string
}

// Get returns an image, after making it if need be.
func Get(ctx context.Context, name Name) (Image, error) {
	definition, ok := definitions[name]
	if !ok {
		return Image{}, fmt.Errorf("get image %q: no such definition", name)
	}
	dir, err := cache.Get(ctx, string(name))
	return Image{Reference: definition.Reference, Path: filepath.Join(dir, archiveName)}, err
}

const archiveName = "image.tar"

var definitions = map[Name]Definition{}

func init() {
	for _, d := range list {
		if base, ok := definitions[d.Base]; ok {
			if d.Suite == "" {
				d.Suite = base.Suite
			}
			if d.Config == nil {
				d.Config = base.Config
			}
		}
		definitions[d.Name] = d
		cache.Register(cache.Item{Name: string(d.Name), Resolve: d.resolve, Make: d.make})
	}
}

func (d Definition) resolve(ctx context.Context) (cache.Inputs, error) {
	var inputs cache.Inputs
	if d.Base != "" {
		base, err := definitions[d.Base].resolve(ctx)
		if err != nil {
			return inputs, err
		}
		inputs = base
	}
	packages := []string{apt.Essential}
	for _, layer := range d.Layers {
		packages = slices.Concat(packages, layer.Packages, layer.Unpacked)
	}
	closure, err := apt.Resolve(ctx, d.Suite, packages...)
	if err != nil {
		return inputs, err
	}
	inputs.Version = closure.Version("base-files")
	inputs.Parts = append(inputs.Parts, closure.Strings()...)
	inputs.Parts = append(inputs.Parts, fmt.Sprintf("%q %q %+v %d %+v", d.Reference, d.Base, d.Layers, d.Tiny, d.Config), recipe)
	if d.Many > 0 {
		inputs.Parts = append(inputs.Parts, fmt.Sprint(d.Many))
	}
	return inputs, nil
}

// recipe is to be changed whenever the code of this package makes different
// images from the same definitions.
const recipe = "1"
