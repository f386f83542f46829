// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Dir holds the receipt. It is on a disk, since what it names is.
const Dir = "/var/lib/isolate"

const receiptName = "install.json"

// receiptVersion is the version of the receipt's format.
const receiptVersion = 1

// receipt is what uninstall has to undo.
type receipt struct {
	Version int `json:"version"`
	// Isolate is what was installed.
	Isolate string `json:"isolate"`
	Files   []file `json:"files"`
	// Directories were made for the files, parents first.
	Directories []string `json:"directories,omitempty"`
	// Edit is the line of containerd's configuration that was changed.
	Edit *host.Edit `json:"edit,omitempty"`
	// Address is that of the containerd that was made to know the handler, "" if
	// none was.
	Address string `json:"address,omitempty"`
	// AppArmor is set if the profile of containers was loaded.
	AppArmor bool `json:"apparmor,omitempty"`
	// Node has the label.
	Node  string `json:"node,omitempty"`
	Label *Label `json:"label,omitempty"`
}

// kind is what a file is for.
type kind string

// The kinds.
const (
	// program is one of the two programs.
	program kind = "program"
	// dropIn holds the handler.
	dropIn kind = "drop-in"
	// mainFile is containerd's main configuration file, on a host that had none.
	mainFile kind = "main"
)

// file is a file that was written.
type file struct {
	Path string `json:"path"`
	Kind kind   `json:"kind"`
	// Sums are the SHA-256 sums that it may have: the newest one, and before that
	// was written for certain, those of earlier installations.
	Sums []string `json:"sums"`
}

// with returns the receipt for a plan that is about to be carried out: nothing of
// an earlier installation is forgotten.
func (r receipt) with(p plan) receipt {
	out := r
	out.Version, out.Isolate = receiptVersion, p.Isolate
	out.Files = nil
	for _, f := range r.Files {
		out.Files = append(out.Files, file{f.Path, f.Kind, slices.Clone(f.Sums)})
	}
	for _, c := range p.Changes {
		i := slices.IndexFunc(out.Files, func(f file) bool { return f.Path == c.Path })
		switch {
		case c.Edit != nil:
			out.Edit = c.Edit
		case i < 0:
			out.Files = append(out.Files, file{c.Path, c.Kind, []string{c.Sum}})
		case !slices.Contains(out.Files[i].Sums, c.Sum):
			out.Files[i].Sums = append(out.Files[i].Sums, c.Sum)
		}
	}
	out.Directories = slices.Clone(r.Directories)
	for _, d := range p.Directories {
		if !slices.Contains(out.Directories, d) {
			out.Directories = append(out.Directories, d)
		}
	}
	if p.configures() {
		out.Address = p.Address
	}
	if p.Node != "" {
		out.Node, out.Label = p.Node, &p.Label
	}
	return out
}

// settled returns the receipt after a plan was carried out.
func (r receipt) settled(p plan) receipt {
	for _, c := range p.Changes {
		i := slices.IndexFunc(r.Files, func(f file) bool { return f.Path == c.Path })
		if i >= 0 && c.Edit == nil {
			r.Files[i].Sums = []string{c.Sum}
		}
	}
	return r
}

// lockReceipt returns the receipt in a directory, which it makes; the receipt is empty if
// there is none. Until the directory is closed nobody else installs or uninstalls.
func lockReceipt(dir string) (r receipt, _ *os.File, retErr error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return r, nil, fmt.Errorf("make %s: %w", dir, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return r, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() {
		if retErr != nil {
			f.Close()
		}
	}()
	switch err := flock.Exclusive(f); {
	case errors.Is(err, flock.ErrLocked):
		return r, nil, fmt.Errorf("lock %s: another isolatectl installs or uninstalls: %w", dir, err)
	case err != nil:
		return r, nil, err
	}
	name := filepath.Join(dir, receiptName)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, f, nil
	}
	if err != nil {
		return r, nil, fmt.Errorf("read receipt: %w", err)
	}
	if r, err = parseReceipt(data); err != nil {
		return r, nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, f, nil
}

// parseReceipt reads and checks a receipt: what it names will be removed. One of a
// later version is read as far as its fields are known.
func parseReceipt(data []byte) (receipt, error) {
	var r receipt
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("decode receipt: %w", err)
	}
	if r.Version < 1 {
		return r, fmt.Errorf("receipt has version %d, the first one was 1", r.Version)
	}
	paths := slices.Clone(r.Directories)
	for _, f := range r.Files {
		paths = append(paths, f.Path)
	}
	if r.Edit != nil {
		paths = append(paths, r.Edit.Path)
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return r, fmt.Errorf("receipt: %q is not a clean absolute path", p)
		}
	}
	return r, nil
}

// save writes the receipt, so that it survives a crash that follows.
func (r receipt) save(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode receipt: %w", err)
	}
	return atomicfile.WriteDurably(filepath.Join(dir, receiptName), append(data, '\n'), 0o644)
}
