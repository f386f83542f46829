// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// programDirs are where programs are looked for.
var programDirs = []string{"/usr/bin", "/usr/local/bin", "/usr/sbin", "/bin", "/usr/local/sbin", "/sbin"}

// Programs tells which programs a container will find: those of its rootfs, and
// those that the caller mounts over it, as people do with the programs of
// Kubernetes.
type Programs struct {
	root    *os.File
	mounts  []specs.Mount
	sources *Sources
}

// FindPrograms opens a rootfs to look for programs there and in the binds among
// the caller's mounts. The caller closes it.
func (s *Stage) FindPrograms(rootfs string, mounts []specs.Mount) (*Programs, error) {
	root, err := openRoot(rootfs)
	if err != nil {
		return nil, err
	}
	return &Programs{root: root, mounts: binds(mounts), sources: &s.sources}, nil
}

// Close closes the rootfs.
func (p *Programs) Close() error { return p.root.Close() }

// Any tells whether one of the programs is there.
func (p *Programs) Any(names ...string) (bool, error) {
	for _, name := range names {
		for _, dir := range programDirs {
			if found, err := p.has(path.Join(dir, name)); found || err != nil {
				return found, err
			}
		}
	}
	return false, nil
}

func (p *Programs) has(file string) (bool, error) {
	for _, m := range slices.Backward(p.mounts) {
		rest, ok := below(m.Destination, file)
		switch {
		case !ok:
		case rest == "":
			return true, nil // the file itself is bound; it need not be opened
		default:
			return p.exists(m.Source, rest)
		}
	}
	return there(p.root, file)
}

// exists looks up a path below a directory of the host as a process with that
// root would. Where that would ask a server, the file is taken to be there.
func (p *Programs) exists(dir, name string) (bool, error) {
	d, err := p.sources.Open(context.Background(), dir)
	if err != nil {
		return false, nil // what is wrong with it, staging the volume tells
	}
	defer d.Close()
	if ok, err := p.sources.local(d); !ok {
		return err == nil, err
	}
	return there(d, name)
}

func there(root *os.File, name string) (bool, error) {
	f, err := openFollowing(root, name)
	if f == nil || err != nil {
		return false, err
	}
	return true, f.Close()
}

// below returns the path of a file relative to a directory that it is in; "" if
// it is the directory.
func below(dir, file string) (string, bool) {
	dir = path.Clean(dir)
	if dir == file {
		return "", true
	}
	return strings.CutPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

// binds are the mounts that show files of the host.
func binds(mounts []specs.Mount) []specs.Mount {
	var out []specs.Mount
	for _, m := range mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			out = append(out, m)
		}
	}
	return out
}
