// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// replaceable tells why another overlay cannot be built from the layers of one
// that is mounted, or is nil. The kernel keeps a file handle of every layer for
// index=on and nfs_export=on, and refuses the upper layer of a mounted overlay
// (EBUSY, ovl_setup_trap) or a layer seen through another mount (ESTALE).
func (o Overlay) replaceable() error {
	for _, option := range o.Options {
		if (option.Key == "index" || option.Key == "nfs_export") && option.Value == "on" {
			return fmt.Errorf("it is mounted with %s, by which the kernel ties it to the mount that its layers are on; mount it with %s=off", option, option.Key)
		}
	}
	return nil
}

// mountOptions writes the overlay as [parseOverlay] reads it, and as mount(2)
// does but for the generic flags.
func (o Overlay) mountOptions() []string {
	var options []string
	for _, key := range slices.Sorted(maps.Keys(mountFlags)) {
		if flag := mountFlags[key]; flag.set != 0 && o.Attrs&flag.set == flag.set {
			options = append(options, key)
		}
	}
	if o.ReadOnly {
		options = append(options, "ro")
	}
	return append(options, o.superOptions()...)
}

// superOptions are the options of the file system.
func (o Overlay) superOptions() []string {
	var options []string
	for _, option := range o.Options {
		options = append(options, option.String())
	}
	var lower strings.Builder
	for i, layer := range o.Lower {
		if i > 0 {
			lower.WriteByte(':')
		}
		lower.WriteString(layerEscaper.Replace(layer))
	}
	for _, layer := range o.DataLower {
		lower.WriteString("::" + layerEscaper.Replace(layer))
	}
	options = append(options, "lowerdir="+lower.String())
	if o.Upper != "" {
		options = append(options, "upperdir="+layerEscaper.Replace(o.Upper), "workdir="+layerEscaper.Replace(o.Work))
	}
	return options
}

// volatile tells whether the kernel leaves out what makes data last. The option
// has two spellings, the second of which newer kernels show.
func (o Overlay) volatile() bool {
	return slices.ContainsFunc(o.Options, func(option mount.Option) bool {
		return option.Key == "volatile" || option.Key == "fsync" && option.Value == "volatile"
	})
}

// ErrNoLayers says that layers of a mounted overlay are not where it names them.
var ErrNoLayers = errors.New("its layers cannot be found")

// base finds the directory from which the relative layers of an overlay start
// that is mounted at path. Whoever mounts many layers goes to their directory
// first and gives short names, since mount(2) takes one page of options: dockerd
// to the home of its storage driver, which the mount point is in, containerd to
// the directory of all snapshots, which the upper layer is in. exists tells
// whether there is a directory. The answer is "" if no layer is relative.
func (o Overlay) base(path string, exists func(dir string) bool) (string, error) {
	relative := false
	layers := append(append([]string(nil), o.Lower...), o.DataLower...)
	for _, layer := range append(layers, o.Upper, o.Work) {
		relative = relative || layer != "" && !filepath.IsAbs(layer)
	}
	if !relative {
		return "", nil
	}
	for _, start := range []string{o.Upper, path} {
		for dir := start; filepath.IsAbs(dir) && dir != "/"; {
			dir = filepath.Dir(dir)
			if o.allExist(dir, exists) {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %q and others are relative to none of the directories above it or above upperdir %q", ErrNoLayers, layers[0], o.Upper)
}

func (o Overlay) allExist(base string, exists func(string) bool) bool {
	at := o.relative(base)
	for _, dir := range append(append(append([]string(nil), at.Lower...), at.DataLower...), at.Upper, at.Work) {
		if dir != "" && !exists(dir) {
			return false
		}
	}
	return true
}
