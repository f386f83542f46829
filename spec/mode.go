// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

// Mode says who maps the container's ids.
type Mode string

const (
	// ModeOwn says that the spec has no user namespace; isolate adds one with a range
	// of host ids that nobody else has.
	ModeOwn Mode = "own"
	// ModeAdopt says that the caller mapped already (Kubernetes hostUsers: false,
	// ctr --uidmap, a hand-made bundle); its mapping is used and nothing is
	// mapped twice.
	ModeAdopt Mode = "adopt"
	// ModeJoin says that the container belongs to one that isolate mapped before, such
	// as a pod's sandbox; it shares its user namespace and range.
	ModeJoin Mode = "join"
)

// Network says what the container may do with its network namespace.
type Network string

const (
	// NetworkOwned says that the network namespace belongs to the container's user
	// namespace; it may be administered and a sysfs may be mounted.
	NetworkOwned Network = "owned"
	// NetworkForeign says that the network namespace is the host's, or belongs to
	// another user namespace. The container uses it without administration,
	// and sees /sys as a read-only bind, because the kernel mounts a sysfs only
	// for the owner of the network namespace (sysfs_init_fs_context).
	NetworkForeign Network = "foreign"
)

// Owner is who owns a namespace that the spec joins by path.
type Owner string

const (
	// OwnerHost is the initial user namespace.
	OwnerHost Owner = "host"
	// OwnerSandbox is the user namespace of Facts.Sandbox.
	OwnerSandbox Owner = "sandbox"
	// OwnerOther is a user namespace that isolate knows nothing of.
	OwnerOther Owner = "other"
)

// Sandbox is a running container whose user namespace can be joined.
type Sandbox struct {
	ID      string
	Mode    Mode // ModeOwn or ModeAdopt
	Userns  string
	Mapping idmap.Mapping
	// Network is what it may do with its network namespace, if that is known.
	Network Network
	// Pod is set if it is the sandbox of a pod, in which nobody's program runs.
	Pod bool
}

// Facts is what Decide must know of the world.
type Facts struct {
	// Joined has the owner of every namespace that the spec joins by path.
	Joined map[specs.LinuxNamespaceType]Owner
	// Sandbox is the container of ours that this one belongs to, by its pod or
	// by a namespace it joins; nil if there is none.
	Sandbox *Sandbox
	// Peer is the container of ours whose pid namespace the spec joins, if it
	// lives in another user namespace than Sandbox; nil if there is none.
	Peer *Sandbox
	// RootfsMapped is set if the rootfs comes with id mappings of its own
	// (uidmap=/gidmap= mount options of containerd's snapshotters).
	RootfsMapped bool
}

// Decision is the answer of Decide.
type Decision struct {
	Mode    Mode
	Network Network
	// Apart is set if the container shares namespaces with others, and has a user
	// namespace of its own with the ids of theirs.
	Apart bool
	// Peer is set if the container lives in the user namespace of Facts.Peer.
	Peer bool
	// AsAsked is set if the container gets those capabilities only that the caller
	// names.
	AsAsked bool
	// ForeignIPC is set if the ipc namespace belongs to another user namespace, so
	// that the container cannot mount its message queues.
	ForeignIPC bool
	Warnings   []string
}

// ErrRefused is wrapped by every error of Decide and Apply that means: this
// spec contradicts what isolate is for; the caller must change it.
var ErrRefused = errors.New("refused by isolate")

// Decide chooses the mode for a spec, or refuses with the reason and the fix.
func Decide(s *specs.Spec, f Facts, p Policy) (Decision, error) {
	d := Decision{Mode: mode(s, f), Network: NetworkOwned}
	if d.Mode == ModeOwn && f.RootfsMapped {
		return d, fmt.Errorf("rootfs is mounted with uidmap=/gidmap= but the spec has no user namespace; remove the mapping or add the user namespace: %w", ErrRefused)
	}
	if d.Mode == ModeAdopt && !hasMapping(s) {
		return d, fmt.Errorf("the spec asks for a user namespace without linux.uidMappings and linux.gidMappings; give both, or remove the user namespace to get an exclusive range: %w", ErrRefused)
	}
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace} {
		if err := private(s, f, t); err != nil {
			return d, err
		}
	}
	d.place(s, f, p)
	d.ForeignIPC = d.outside(s, specs.IPCNamespace)
	if d.Mode == ModeAdopt {
		// The caller joined or made the namespaces together with the user
		// namespace; whether sysfs can be mounted is the caller's business,
		// but a foreign network namespace is repaired as in own mode.
		d.Network = network(s, f, OwnerOther)
	} else {
		d.Network = network(s, f, "")
	}
	if d.Network == NetworkOwned && d.outside(s, specs.NetworkNamespace) {
		d.Network = NetworkForeign
		return d, nil
	}
	if d.Network == NetworkForeign {
		what := "the host's network namespace"
		if n := Namespace(s, specs.NetworkNamespace); n != nil {
			what = fmt.Sprintf("network namespace %q, which belongs to another user namespace", n.Path)
		}
		if p.RefuseForeignNetns {
			return d, fmt.Errorf("container uses %s and foreign_netns is \"refuse\"; give it a network namespace of its own (Kubernetes: hostUsers: false): %w", what, ErrRefused)
		}
		if d.Mode == ModeJoin && f.Sandbox.Network == NetworkForeign {
			return d, nil // one warning for a pod
		}
		d.Warnings = append(d.Warnings, fmt.Sprintf("container uses %s: it runs without network administration and with /sys read-only (Kubernetes: set hostUsers: false)", what))
	}
	return d, nil
}

func mode(s *specs.Spec, f Facts) Mode {
	user := Namespace(s, specs.UserNamespace)
	switch {
	case user != nil:
		return ModeAdopt
	case f.Sandbox != nil:
		return ModeJoin
	default:
		return ModeOwn
	}
}

func hasMapping(s *specs.Spec) bool {
	return len(s.Linux.UIDMappings) > 0 && len(s.Linux.GIDMappings) > 0
}

// private refuses a pid or ipc namespace that the container's user namespace
// does not own: the kernel would refuse to mount its /proc or /dev/mqueue.
func private(s *specs.Spec, f Facts, t specs.LinuxNamespaceType) error {
	n := Namespace(s, t)
	if n == nil {
		return fmt.Errorf("container shares the host's %s namespace, which a container with its own user namespace cannot use; drop the host %s setting or run it with another runtime: %w", t, t, ErrRefused)
	}
	if n.Path != "" && f.Joined[t] == OwnerHost {
		return fmt.Errorf("%s namespace %q belongs to the host's user namespace, which a container with its own user namespace cannot use; join a container that isolate runs: %w", t, n.Path, ErrRefused)
	}
	return nil
}

// network classifies the network namespace; trust is an owner besides the
// sandbox that counts as the container's own.
func network(s *specs.Spec, f Facts, trust Owner) Network {
	n := Namespace(s, specs.NetworkNamespace)
	if n == nil {
		return NetworkForeign
	}
	if n.Path == "" {
		return NetworkOwned
	}
	if o := f.Joined[specs.NetworkNamespace]; o == OwnerSandbox || (trust != "" && o == trust) {
		return NetworkOwned
	}
	return NetworkForeign
}

// Namespace returns the namespace entry of a type, or nil.
func Namespace(s *specs.Spec, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
	if i < 0 {
		return nil
	}
	return &s.Linux.Namespaces[i]
}
