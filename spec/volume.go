// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

// Volume is one bind mount of the spec, which the shim stages: it makes a clone
// of the source in its own mount namespace and gives the runtime the clone.
// Flags set there are locked by the kernel when the container's less
// privileged mount namespace copies them (mount_namespaces(7)), which a flag
// set by the runtime inside the container's user namespace is not.
type Volume struct {
	Index       int    // of the mount in spec.mounts
	Destination string // in the container, for messages
	Source      string // absolute path on the host
	// Kernel is the type of a file system of the kernel, "sysfs" or "mqueue", to be
	// mounted in the namespace Source, or, if there is none, to be cloned from the
	// host; "" for a clone of Source.
	Kernel    string `json:",omitempty"`
	Recursive bool   // rbind: submounts come along
	// Flags are the mount(8) options of the spec that become flags of the
	// clone, such as "ro", "nosuid"; with a leading r ("rro") for the whole
	// tree.
	Flags []string
	// Propagated is set if mounts that the host makes below the source later
	// shall appear in the container (rslave, rshared).
	Propagated bool
	// Mapping is how ids on disk appear; nil leaves the source's own ids.
	Mapping *idmap.Mapping
}

// Volumes lists the bind mounts of a spec in order. bundle is the directory
// against which relative sources are resolved (OCI runtime spec, config.md,
// "Mounts").
//
// In modes own and join every volume gets the container's mapping, so that ids
// on disk are those inside. In mode adopt only those for which the caller asks
// with per-mount mappings: the others were prepared for the caller's mapping.
func Volumes(s *specs.Spec, d Decision, m idmap.Mapping, bundle string) ([]Volume, error) {
	var out []Volume
	for i, mt := range s.Mounts {
		if !isBind(mt) {
			if foreign(mt, d) {
				out = append(out, kernelVolume(s, i, mt))
			}
			continue
		}
		v := Volume{
			Index:       i,
			Destination: mt.Destination,
			Source:      mt.Source,
			Recursive:   slices.Contains(mt.Options, "rbind"),
			Propagated:  slices.ContainsFunc(mt.Options, isPropagation),
		}
		if !filepath.IsAbs(v.Source) {
			v.Source = filepath.Join(bundle, v.Source)
		}
		for _, o := range mt.Options {
			if cloneFlags[o] {
				v.Flags = append(v.Flags, o)
			}
		}
		mapping, err := volumeMapping(mt, d, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", mt.Destination, err)
		}
		v.Mapping = mapping
		out = append(out, v)
	}
	return out, nil
}

// ReadOnlyAsDocker makes read-only volumes of dockerd's containers read-only with
// all that is mounted in them. Since version 25 dockerd asks for that (the option
// rro) where the features of a runtime have it, but it knows those of runc alone
// (moby: supportsRecursivelyReadOnly). For others it sends the same "ro" as for
// bind-recursive=writable, from which it cannot be told.
func ReadOnlyAsDocker(volumes []Volume) {
	for _, v := range volumes {
		if i := slices.Index(v.Flags, "ro"); i >= 0 && v.Recursive {
			v.Flags[i] = "rro"
		}
	}
}

// volumeMapping is nil for a volume that keeps its ids.
func volumeMapping(mt specs.Mount, d Decision, m idmap.Mapping) (*idmap.Mapping, error) {
	if len(mt.UIDMappings) == 0 || len(mt.GIDMappings) == 0 {
		if d.Mode == ModeAdopt && !slices.ContainsFunc(mt.Options, isIdmapOption) {
			return nil, nil
		}
		return &m, nil
	}
	asked, err := idmap.FromSpec(mt.UIDMappings, mt.GIDMappings)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrRefused)
	}
	if d.Mode == ModeOwn {
		// The caller knew of no user namespace: what it calls host ids are the
		// ids it wants to see in the container.
		if asked, err = within(asked, m); err != nil {
			return nil, err
		}
	}
	return &asked, nil
}

// within moves the host side of a mapping into the container's own.
func within(asked, m idmap.Mapping) (idmap.Mapping, error) {
	move := func(ranges []idmap.Range, toHost func(idmap.ContainerID) (idmap.HostID, bool)) error {
		for i, r := range ranges {
			first, ok := toHost(idmap.ContainerID(r.Host))
			last, ok2 := toHost(idmap.ContainerID(r.Host) + idmap.ContainerID(r.Size) - 1)
			if !ok || !ok2 || uint64(last)-uint64(first) != uint64(r.Size)-1 {
				return fmt.Errorf("its id mapping %v is outside the container's id range: %w", r, ErrRefused)
			}
			ranges[i].Host = first
		}
		return nil
	}
	if err := move(asked.UIDs, m.UIDToHost); err != nil {
		return asked, err
	}
	return asked, move(asked.GIDs, m.GIDToHost)
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func isIdmapOption(o string) bool { return o == "idmap" || o == "ridmap" }

func isPropagation(o string) bool {
	return o == "slave" || o == "rslave" || o == "shared" || o == "rshared"
}

// cloneFlags are the options of mount(8) and the OCI runtime spec ("Linux mount
// options") that mount_setattr(2) can set. Clearing options (rw, suid, …) are
// not here: a clone starts with its source's flags, and what the source forbids
// stays forbidden.
var cloneFlags = func() map[string]bool {
	flags := map[string]bool{}
	for _, f := range []string{"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"} {
		flags[f], flags["r"+f] = true, true
	}
	return flags
}()

// clearingFlags are the options that take flags away.
var clearingFlags = func() map[string]bool {
	flags := map[string]bool{}
	for _, f := range []string{"rw", "suid", "dev", "exec", "atime", "diratime", "norelatime", "nostrictatime", "symfollow"} {
		flags[f], flags["r"+f] = true, true
	}
	return flags
}()

// volumes points the spec at the staged clones. The mapping is done, so the
// spec must not ask for it again. The flags become those of the clone, no fewer
// and no more: runc 1.1 fails to set other ones on a mount with locked flags,
// and crun takes away those that the spec does not name.
func volumes(s *specs.Spec, p *Plan) ([]string, error) {
	for i, staged := range p.Staged {
		m := &s.Mounts[i]
		if foreign(*m, p.Decision) {
			continue // replaced by the next step
		}
		m.Source = staged.Source
		m.UIDMappings, m.GIDMappings = nil, nil
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
			return isIdmapOption(o) || cloneFlags[o] || clearingFlags[o]
		})
		m.Options = append(m.Options, staged.Flags...)
	}
	return nil, nil
}
