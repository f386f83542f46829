// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/identifiers"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
)

// Root is where the state of all containers is. It and [Unmount] are variables for
// the tests of packages that make records.
var Root = "/run/isolate"

// IDs is the directory of package pool.
func IDs() string { return filepath.Join(Root, ".ids") }

// Version is the version of the record's format. Containers outlive an upgrade and a
// rollback, so every isolate reads every record, those of later versions as far as it knows
// their fields: to undo most of a container is better than nothing. A field never
// changes its meaning; one that gets another meaning gets another name.
const Version = 1

// file is the record's name in its directory.
const file = "record.json"

// Record is what must be known to undo a container, and to join it.
type Record struct {
	Version   int    `json:"version"`
	Namespace string `json:"namespace"` // containerd's
	ID        string `json:"id"`
	Bundle    string `json:"bundle"` // absolute
	Mode      string `json:"mode"`   // spec.Mode
	// Mapping is the container's id mapping.
	Mapping idmap.Mapping `json:"mapping"`
	// Lease is the range that the container holds; nil in mode adopt.
	Lease *idmap.Span `json:"lease,omitempty"`
	// Rootfs is set if the shim mounted RootfsDir itself.
	Rootfs bool `json:"rootfs,omitempty"`
	// Directory is set if the caller named a directory as rootfs instead of mounts.
	Directory bool `json:"directory,omitempty"`
	// Premounted is the caller's mount that the shim has replaced, or nil.
	Premounted *Premounted `json:"handed,omitempty"`
	// Runtime is the OCI runtime that runs the container.
	Runtime Runtime `json:"runtime"`
	// Cgroups are the directories of the container's cgroups: one on cgroup v2,
	// on v1 one in each hierarchy.
	Cgroups []string `json:"cgroups,omitempty"`
	// Premade are those of Cgroups that existed before the container, and stay.
	Premade []string `json:"premade_cgroups,omitempty"`
	// Init is the container's first process, once it exists.
	Init *proc.ID `json:"init,omitempty"`
	// Userns and PIDs are the namespaces of that process.
	Userns *ns.ID `json:"userns,omitempty"`
	PIDs   *ns.ID `json:"pidns,omitempty"`
	// Stages are those of making the container, once it is made.
	Stages Stages `json:"stages,omitempty"`
	// Warnings are the degradations that were logged.
	Warnings []string `json:"warnings,omitempty"`

	root string // Root, or a test's
}

// Member is what is known of the container whatever any pid says.
func (r *Record) Member() member.Container {
	c := member.Container{Mapping: r.Mapping, Cgroups: r.Cgroups}
	if r.Userns != nil {
		c.Userns = *r.Userns
	}
	if r.PIDs != nil {
		c.PIDs = *r.PIDs
	}
	return c
}

// Verified notes the container's first process.
func (r *Record) Verified(init *member.Process) {
	id, c := init.ID(), init.Container()
	r.Init = &id
	if c.Userns != (ns.ID{}) {
		r.Userns = &c.Userns
	}
	if c.PIDs != (ns.ID{}) {
		r.PIDs = &c.PIDs
	}
}

// Runtime names an OCI runtime.
type Runtime struct {
	Path    string `json:"path"`
	Version string `json:"version,omitempty"`
	// Root is the directory in which it keeps its state, that of each namespace
	// in one of its own.
	Root string `json:"root,omitempty"`
}

// ErrNotFound says that there is no record: nothing was done, or everything is
// undone.
var ErrNotFound = fs.ErrNotExist

// dir returns the directory of a container's state. It refuses names that
// containerd would refuse, so that none can leave root.
func dir(root, namespace, id string) (string, error) {
	for _, name := range []string{namespace, id} {
		if err := identifiers.Validate(name); err != nil {
			return "", fmt.Errorf("container %q in namespace %q: %w", id, namespace, err)
		}
	}
	return filepath.Join(root, namespace, id), nil
}

// Dir returns the directory of the record.
func (r *Record) Dir() (string, error) { return dir(r.stateRoot(), r.Namespace, r.ID) }

func (r *Record) stateRoot() string {
	if r.root == "" {
		return Root
	}
	return r.root
}

// Parse reads and checks a record.
func Parse(data []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return &r, r.valid()
}

func (r *Record) valid() error {
	if r.Version < 1 {
		return fmt.Errorf("record has version %d, the first one was 1", r.Version)
	}
	if _, err := dir(Root, r.Namespace, r.ID); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if !filepath.IsAbs(r.Bundle) || filepath.Clean(r.Bundle) != r.Bundle {
		return fmt.Errorf("record: bundle %q is not a clean absolute path", r.Bundle)
	}
	if err := r.Premounted.valid(); err != nil {
		return err
	}
	for _, c := range r.Cgroups {
		if !filepath.IsAbs(c) || filepath.Clean(c) != c {
			return fmt.Errorf("record: cgroup %q is not a clean absolute path", c)
		}
	}
	return nil
}

// Load reads the record of a container, or answers ErrNotFound.
func Load(namespace, id string) (*Record, error) { return load(Root, namespace, id) }

func load(root, namespace, id string) (*Record, error) {
	d, err := dir(root, namespace, id)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(d, file))
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	r, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(d, file), err)
	}
	if r.Namespace != namespace || r.ID != id {
		return nil, fmt.Errorf("%s: record is of container %q in namespace %q", filepath.Join(d, file), r.ID, r.Namespace)
	}
	r.root = root
	return r, nil
}

// List reads every record. Unreadable ones are reported beside the others.
func List() ([]*Record, error) { return list(Root) }

func list(root string) ([]*Record, error) {
	paths, err := filepath.Glob(filepath.Join(root, "*", "*", file))
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var records []*Record
	var errs []error
	for _, p := range paths {
		namespace, id := filepath.Base(filepath.Dir(filepath.Dir(p))), filepath.Base(filepath.Dir(p))
		if strings.HasPrefix(namespace, ".") {
			continue
		}
		r, err := load(root, namespace, id)
		switch {
		case errors.Is(err, ErrNotFound): // cleaned up meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			records = append(records, r)
		}
	}
	return records, errors.Join(errs...)
}

// Save writes the record, which need not be durable: it is on a tmpfs. The directories are made traversable, since the runtime opens staged
// mounts as the container's root.
func (r *Record) Save() error {
	if err := r.valid(); err != nil {
		return err
	}
	d, err := r.Dir()
	if err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	// Whoever makes the container has made its directory, by Lock.
	if err := os.MkdirAll(d, 0o711); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	return atomicfile.Write(filepath.Join(d, file), data, 0o600)
}
