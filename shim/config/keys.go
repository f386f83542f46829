// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// Key describes one setting.
type Key struct {
	// Name is the dotted TOML name, such as "lxcfs.mode".
	Name string
	// Values lists what a [Choice] allows; nil for other types.
	Values []string
	// Doc is one or more sentences for an administrator.
	Doc string
	// Annotation is the short name under which a container may set the key,
	// or "" if no container ever can.
	Annotation string

	field func(*Config) any // a pointer to it
}

// Get returns the value of the key in c.
func (k Key) Get(c Config) any {
	c = c.clone()
	return reflect.ValueOf(k.field(&c)).Elem().Interface()
}

// Type is the TOML type in words, for error messages and isolatectl.
func (k Key) Type() string {
	switch k.field(&Config{}).(type) {
	case *Choice, *string:
		return "string"
	case *bool:
		return "true or false"
	case *uint32:
		return "integer"
	default:
		return "list of strings"
	}
}

// setText sets the key to what an annotation says.
func (k Key) setText(c *Config, text string) error {
	switch to := k.field(c).(type) {
	case *Choice:
		*to = Choice(text)
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither \"true\" nor \"false\"", text)
		}
		*to = text == "true"
	case *uint32:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		*to = uint32(n)
	default:
		return fmt.Errorf("%s cannot be set by an annotation: %w", k.Name, errors.ErrUnsupported)
	}
	return nil
}

// Keys returns every setting, in the order of the configuration file.
func Keys() []Key { return slices.Clone(keys) }

var keys = []Key{
	{
		Name: "nesting", Values: choices(NestingFull, NestingOff), Annotation: "nesting",
		Doc: "full: containers get what systemd, Docker and Kubernetes need to run inside them, all of it within their own user namespace. " +
			"off: devices, masked paths and cgroups stay as the caller asked.",
		field: func(c *Config) any { return &c.Nesting },
	},
	{
		Name: "init", Values: choices(InitAuto, InitSystemd, InitOther), Annotation: "init",
		Doc: "Whether a container's first process is systemd, which gets a tmpfs on /run and its own signal to stop. " +
			"auto: if the entry point is a program called systemd, or a script or sh -c that execs one; up to 4 scripts are read for that. " +
			"systemd, other: it is, or is not.",
		field: func(c *Config) any { return &c.Init },
	},
	{
		Name: "caps", Values: choices(CapsFull, CapsHonor), Annotation: "caps",
		Doc: "full: a root process gets every capability that means something inside a user namespace. " +
			"honor: it gets what the caller asked for.",
		field: func(c *Config) any { return &c.Caps },
	},
	{
		Name: "seccomp", Values: choices(SeccompWiden, SeccompKeep), Annotation: "seccomp",
		Doc:   "widen: the caller's seccomp profile also allows what nesting needs. keep: the profile stays as it is.",
		field: func(c *Config) any { return &c.Seccomp },
	},
	{
		Name: "apparmor", Values: choices(AppArmorAuto, AppArmorKeep),
		Doc: "auto: where nesting is full and the profile isolate-default is loaded (isolatectl apparmor load), containers get it instead of none or of what engines give by default " +
			"(docker-default, cri-containerd.apparmor.d, nerdctl-default), which denies mounts; a profile that was asked for by name stays, unconfined too. " +
			"keep: whatever the caller gives stays.",
		field: func(c *Config) any { return &c.AppArmor },
	},
	{
		Name: "foreign_netns", Values: choices(ForeignNetnsDegrade, ForeignNetnsRefuse), Annotation: "foreign_netns",
		Doc: "What to do with a container whose network namespace belongs to another user namespace (host network, a pod without hostUsers: false). " +
			"degrade: it runs without network administration and with a read-only /sys. refuse: it does not run.",
		field: func(c *Config) any { return &c.ForeignNetns },
	},
	{
		Name: "pods", Values: choices(PodsApart, PodsShared), Annotation: "pods",
		Doc: "What the containers of a pod, or of docker run --network container:X, can do to each other. " +
			"apart: no more than under other runtimes; each has every capability, in a user namespace of its own, and administers the network and other things that they share only if it asks for CAP_NET_ADMIN or CAP_SYS_ADMIN. " +
			"shared: all have every capability in one user namespace, so that each can enter the others.",
		field: func(c *Config) any { return &c.Pods },
	},
	{
		Name:  "runtime.binary",
		Doc:   "The OCI runtime: an absolute path, or a name to find on PATH. Empty: runc, then crun. A binary named in the request wins.",
		field: func(c *Config) any { return &c.Runtime.Binary },
	},
	{
		Name:  "runtime.root",
		Doc:   "The directory in which the OCI runtime keeps its state, an absolute path. Empty: containerd's own choice, /run/containerd/runc.",
		field: func(c *Config) any { return &c.Runtime.Root },
	},
	{
		Name:  "runtime.systemd_cgroup",
		Doc:   "Let systemd create the cgroups (runc --systemd-cgroup). It does in any case where the caller names a cgroup in systemd's form, as Docker and containerd do with that cgroup driver.",
		field: func(c *Config) any { return &c.Runtime.SystemdCgroup },
	},
	{
		Name: "ids.pool",
		Doc: "Host ids that containers may get, as \"first-last\". " +
			"Empty: the lines of user isolate in /etc/subuid and /etc/subgid, else 1879048192-2147352575.",
		field: func(c *Config) any { return &c.IDs.Pool },
	},
	{
		Name: "ids.size", Annotation: "size",
		Doc:   "How many ids a container gets, a multiple of 65536. More are needed to nest containers that have user namespaces of 65536 ids themselves.",
		field: func(c *Config) any { return &c.IDs.Size },
	},
	{
		Name: "ids.adopt", Values: choices(AdoptExclusive, AdoptShared),
		Doc: "What to do with a container whose caller maps it to host ids that another one of isolate has (ctr --uidmap, Docker's userns-remap); containers of one pod share theirs in any case, and ids that isolate has given out are never shared. " +
			"exclusive: it does not run. shared: it does, and each of the two can do to the other what a process of the same user can.",
		field: func(c *Config) any { return &c.IDs.Adopt },
	},
	{
		Name: "rootfs.method", Values: choices(RootfsAuto, RootfsDetached, RootfsPrivate, RootfsChown),
		Doc: "How the layers of an overlay are idmapped. auto: the first one that works. detached: by file descriptor (Linux 6.15). private: through a private mount namespace (Linux 5.19). " +
			"chown: not at all, the ids of the files are moved on disk, as by rootfs.fallback.",
		field: func(c *Config) any { return &c.Rootfs.Method },
	},
	{
		Name: "rootfs.fallback", Values: choices(FallbackRefuse, FallbackChown),
		Doc: "What to do with a root file system that cannot be idmapped. refuse: the container does not start. " +
			"chown: the ids of its files are moved on disk, which copies every file of the image once for each container and leaves the container's host ids in its layer.",
		field: func(c *Config) any { return &c.Rootfs.Fallback },
	},
	{
		Name: "volumes.require_idmap", Annotation: "require_idmap",
		Doc:   "Refuse a bind mount whose file system cannot be idmapped, instead of a plain bind and a warning.",
		field: func(c *Config) any { return &c.Volumes.RequireIDMap },
	},
	{
		Name: "lxcfs.mode", Values: choices(LXCFSAuto, LXCFSRequire, LXCFSOff), Annotation: "lxcfs",
		Doc:   "auto: use a running lxcfs, warn and go on without it if it is absent or does not answer. require: refuse the container then. off: do not look for it.",
		field: func(c *Config) any { return &c.LXCFS.Mode },
	},
	{
		Name:  "lxcfs.path",
		Doc:   "The mount point of lxcfs, an absolute path. Empty: the newest lxcfs mount in mountinfo.",
		field: func(c *Config) any { return &c.LXCFS.Path },
	},
	{
		Name:  "lxcfs.timeout_ms",
		Doc:   "How long lxcfs may take to answer, in milliseconds (10 to 60000), before it counts as hung.",
		field: func(c *Config) any { return &c.LXCFS.TimeoutMS },
	},
	{
		Name:  "lxcfs.nested",
		Doc:   "Give the containers inside a container its limits as well.",
		field: func(c *Config) any { return &c.LXCFS.Nested },
	},
	{
		Name: "lxcfs.sysinfo",
		Doc: "Answer sysinfo(2) for programs that do not read /proc, as free and uptime of busybox or getconf _PHYS_PAGES: they see the container's memory, threads and uptime too. " +
			"Each such call takes some hundred microseconds instead of one. Not with nesting = \"off\" or seccomp = \"keep\".",
		field: func(c *Config) any { return &c.LXCFS.Sysinfo },
	},
	{
		Name: "lxcfs.abort_hung",
		Doc: "End the FUSE connection of an lxcfs that does not answer, which frees the processes that wait for it; lxcfs ends then and has to be started again. " +
			"Otherwise they wait until it answers or ends, and only those that read later see the host's values.",
		field: func(c *Config) any { return &c.LXCFS.AbortHung },
	},
	{
		Name: "cgroup.max_descendants", Annotation: "max_descendants",
		Doc:   "How many groups a container may make below its own on cgroup v2, 0 for any number. A Kubernetes node with 110 pods makes 500; the kernel has 65535 ids for all groups of the machine.",
		field: func(c *Config) any { return &c.Cgroup.MaxDescendants },
	},
	{
		Name: "cgroup.max_depth", Annotation: "max_depth",
		Doc:   "How deep a container may nest groups below its own on cgroup v2, 0 for any depth. A Kubernetes pod inside makes 5 levels.",
		field: func(c *Config) any { return &c.Cgroup.MaxDepth },
	},
	{
		Name: "annotations.allow",
		Doc: "Settings that a container may choose by an annotation io.containerd.isolate.<name>: " +
			"caps, foreign_netns, init, lxcfs, max_depth, max_descendants, nesting, pods, require_idmap, seccomp, size. " +
			"And whole names of annotations that the OCI runtime or containerd obeys, which are removed otherwise: run.oci.* and krun.* of crun, org.criu.config, " +
			"org.systemd.property.*, io.containerd.runc.v2.group; one that ends with a dot allows all that begin so. They can have files of the host written. Empty: none.",
		field: func(c *Config) any { return &c.Annotations.Allow },
	},
}

// keyNamed returns the entry of a dotted name.
func keyNamed(name string) (Key, bool) {
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		return Key{}, false
	}
	return keys[i], true
}
