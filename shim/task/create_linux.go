// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// Create makes a container: everything isolate does happens here, around
// upstream's Create.
func (s *Service) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	c := &container{id: r.ID, kernel: s.kernel, execs: map[string]*execution{}}
	ctx, end, err := s.begin(ctx, c)
	if err != nil {
		return nil, toGRPC(err)
	}
	defer end()
	go ending.Sweep(detached(ctx)) // this one may need what is left
	resp, err := s.create(ctx, c, r)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errAbandoned) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, toGRPC(idmap.ExplainNoSpace(err))
	}
	return resp, nil
}

func (s *Service) create(ctx context.Context, c *container, r *taskAPI.CreateTaskRequest) (_ *taskAPI.CreateTaskResponse, retErr error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	ctx = log.WithLogger(ctx, log.G(ctx).WithFields(log.Fields{"id": r.ID, "namespace": ns}))

	// bundle
	doc, err := readBundle(r.Bundle)
	if err != nil {
		return nil, err
	}
	// options
	settings, bin, err := s.resolve(ctx, config.Dir, r.Options)
	if err != nil {
		return nil, err
	}
	cfg, err := settings.Config.WithAnnotations(doc.Spec.Annotations)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	settings.Runc.SystemdCgroup = settings.Runc.SystemdCgroup || spec.SystemdCgroup(doc.Spec)
	probe := startProbe(ctx, cfg) // beside the steps up to settle
	defer probe.Close()           //nolint:errcheck // mounts, only held

	// plan
	unlock, err := lockID(ctx, ns, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := endEarlier(ctx, ns, r.ID, r.Bundle); err != nil {
		return nil, err
	}
	c.bounds = cfg.Cgroup
	if n := spec.Namespace(doc.Spec, specs.PIDNamespace); n != nil {
		c.ownPIDs = n.Path == ""
	}
	pod := spec.PodOf(ns, r.ID, doc.Spec.Annotations)
	facts, err := s.facts(ctx, doc.Spec, pod, stage.Mapped(r.Rootfs))
	if err != nil {
		return nil, err
	}
	c.plan.Decision, err = spec.Decide(doc.Spec, facts, policy(cfg, bin))
	if err != nil {
		return nil, err
	}
	c.plan.MisreportsPIDs = bin.Name == runtime.Crun
	c.plan.OCIVersion = bin.OCIVersion(doc.Spec.Version)
	c.plan.Annotations.Allowed = cfg.Annotations.Allow
	if bin.Features != nil {
		c.plan.Annotations.Obeyed = bin.Features.PotentiallyUnsafeConfigAnnotations
	}
	c.sandbox = facts.Sandbox
	if c.plan.Peer {
		c.plan.Userns = facts.Peer.Userns
	}

	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, c.undo(detached(ctx)))
		}
	}()
	// lease
	if err := stage.Reachable(ctx, r.Rootfs, rootfsDir(r.Bundle, doc.Spec)); err != nil {
		return nil, err
	}
	preferred := stage.Preferred(snapshots, r.Rootfs, rootfsDir(r.Bundle, doc.Spec))
	if err := c.lease(ctx, ns, doc.Spec, cfg, settings.Runc.SystemdCgroup, preferred); err != nil {
		return nil, err
	}
	// record
	if err := c.write(ns, r, doc.Spec, settings, cfg, bin); err != nil {
		return nil, err
	}
	// user namespace
	userns, err := c.makeUserns(ctx, doc.Spec, r.Checkpoint != "")
	if err != nil {
		return nil, err
	}
	if userns != nil {
		defer userns.Close() //nolint:errcheck // only held
	}
	clocks := c.startClocks(doc.Spec, cfg, bin, r.Checkpoint != "")
	defer clocks.release()
	// stage
	if err := c.mount(ctx, r, doc.Spec, cfg, bin); err != nil {
		return nil, err
	}
	if c.plan.Nodes, err = nodes(ctx, doc.Spec); err != nil {
		return nil, err
	}
	// spec
	if err := c.netSysctls(doc.Spec); err != nil {
		return nil, err
	}
	if err := c.joinClocks(ctx, doc.Spec, clocks); err != nil {
		return nil, err
	}
	if err := c.edit(ctx, r.Bundle, doc, cfg, bin, probe); err != nil {
		return nil, err
	}
	// runtime
	req, err := c.request(r, settings, bin)
	if err != nil {
		return nil, err
	}
	if err := c.limits.lend(""); err != nil {
		return nil, err
	}
	if err := c.expect(doc.Spec); err != nil {
		return nil, err
	}
	resp, err := s.TTRPCTaskService.Create(ctx, req)
	if err != nil && c.refused != nil {
		return nil, c.refused
	}
	if err != nil {
		return nil, err
	}
	// settle
	if err := c.settle(ctx, int(resp.Pid), probe); err != nil {
		if c.init != nil { // else the runtime's word is not good enough to signal anybody
			s.discard(detached(ctx), c)
		}
		return nil, err
	}
	if err := s.enter(ctx, c); err != nil {
		s.discard(detached(ctx), c)
		return nil, err
	}
	s.watch(ctx, c, cfg)
	c.announce(ctx, bin)
	return resp, nil
}

func readBundle(bundle string) (*spec.Document, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	doc, err := spec.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doc, nil
}

func policy(cfg config.Config, bin runtime.Binary) spec.Policy {
	return spec.Policy{
		RefuseForeignNetns: cfg.ForeignNetns == config.ForeignNetnsRefuse,
		Apart:              cfg.Pods == config.PodsApart && cfg.Nesting == config.NestingFull && cfg.Caps == config.CapsFull,
		OneUserns:          bin.OneUserns(),
	}
}

// lease settles whose ids the container has, and takes hold of its range: of the
// one that its files have on disk, if they do and it is free.
func (c *container) lease(ctx context.Context, ns string, s *specs.Spec, cfg config.Config, systemd bool, preferred idmap.HostID) error {
	if err := c.findCgroups(ctx, s, systemd); err != nil {
		return err
	}
	owner := pool.Owner{Namespace: ns, ID: c.id, Cgroups: c.cgroups}
	switch c.plan.Mode {
	case spec.ModeAdopt:
		m, err := idmap.FromSpec(s.Linux.UIDMappings, s.Linux.GIDMappings)
		if err != nil {
			return fmt.Errorf("id mapping of the spec: %w: %w", err, spec.ErrRefused)
		}
		if err := pool.CheckHost(m, accounts); err != nil {
			return fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
		c.plan.Mapping = m
		return c.adopt(ctx, owner, cfg, spec.Namespace(s, specs.UserNamespace).Path)
	case spec.ModeJoin:
		c.plan.Mapping = c.sandbox.Mapping
		if !c.plan.Apart && !c.plan.Peer {
			c.plan.Userns = c.sandbox.Userns
		}
		if c.sandbox.Mode != spec.ModeOwn {
			return c.adopt(ctx, owner, cfg, c.sandbox.Userns)
		}
		p, err := openPool(cfg)
		if err != nil {
			return err
		}
		c.held, err = p.Share(ctx, c.plan.Mapping, owner)
		return err
	case spec.ModeOwn:
		p, err := openPool(cfg)
		if err != nil {
			return err
		}
		c.held, err = p.AcquirePreferred(ctx, owner, cfg.IDs.Size, preferred)
		if err != nil {
			return err
		}
		c.plan.Mapping = c.held.Mapping()
	}
	return nil
}

// write writes the record, before the first mount.
func (c *container) write(ns string, r *taskAPI.CreateTaskRequest, s *specs.Spec, settings options.Settings, cfg config.Config, bin runtime.Binary) error {
	root := settings.Runc.GetRoot()
	if root == "" {
		root = process.RuncRoot
	}
	c.record = &record.Record{
		Version:   record.Version,
		Namespace: ns,
		ID:        r.ID,
		Bundle:    r.Bundle,
		Mode:      string(c.plan.Mode),
		Mapping:   c.plan.Mapping,
		Rootfs:    len(r.Rootfs) > 0 || c.mapsRootfs(r.Rootfs),
		Runtime:   record.Runtime{Path: bin.Path, Version: bin.Version, Root: root},
		Cgroups:   c.cgroups,
		Premade:   c.premade,
	}
	if err := c.takes(r, s, chownPolicy(cfg.Rootfs)); err != nil {
		c.record = nil
		return err
	}
	if c.held != nil && c.held.Size > 0 {
		c.record.Lease = &c.held.Span
	}
	if err := c.record.Save(); err != nil {
		c.record = nil
		return err
	}
	return nil
}

// takes finds out what a directory is that the caller names as rootfs.
func (c *container) takes(r *taskAPI.CreateTaskRequest, s *specs.Spec, policy stage.ChownPolicy) error {
	if len(r.Rootfs) > 0 || !c.mapsRootfs(nil) {
		return nil
	}
	c.record.Directory = true
	if policy == stage.ChownAlways {
		return nil
	}
	var err error
	c.handed, err = stage.FindHanded(rootfsDir(r.Bundle, s))
	if errors.Is(err, spec.ErrRefused) && policy == stage.ChownFallback {
		return nil // its ids are moved on disk instead
	}
	if err != nil || c.handed == nil {
		return err
	}
	c.record.Handed = &record.Handed{
		Path: c.handed.Path, Source: record.NewSource(), Was: c.handed.Source, Dir: c.handed.Dir, Options: c.handed.Overlay.MountOptions(),
	}
	return nil
}

// mapsRootfs is true unless the caller prepared the rootfs for its own mapping:
// by chowning it, or by mount options that containerd understands.
func (c *container) mapsRootfs(mounts []*types.Mount) bool {
	switch c.plan.Mode {
	case spec.ModeAdopt:
		return false
	case spec.ModeJoin:
		return c.sandbox.Mode == spec.ModeOwn && !stage.Mapped(mounts)
	default:
		return true
	}
}

// mount mounts the rootfs, stages the volumes, and makes what nesting needs.
func (c *container) mount(ctx context.Context, r *taskAPI.CreateTaskRequest, s *specs.Spec, cfg config.Config, bin runtime.Binary) error {
	dir, err := c.record.StageDir()
	if err != nil {
		return err
	}
	if err := c.openTo(filepath.Dir(dir)); err != nil {
		return err
	}
	st := stage.New(c.kernel, dir, s.Linux.MountLabel)
	defer st.Close() //nolint:errcheck // user namespaces, only held
	rootfs := rootfsDir(r.Bundle, s)
	if c.record.Rootfs {
		c.plan.Rootfs = c.record.RootfsDir()
		if err := c.mountRootfs(ctx, st, r, rootfs, cfg); err != nil {
			return err
		}
		c.sealed = s.Root.Readonly && c.upper != "" && c.mapsRootfs(r.Rootfs)
		rootfs = c.plan.Rootfs
	}
	if err := c.openTo(r.Bundle); err != nil {
		return err
	}
	paths := map[int]string{}
	volumes, err := spec.Volumes(s, c.plan.Decision, c.plan.Mapping, r.Bundle)
	if err != nil {
		return err
	}
	if c.record.Namespace == dockerNamespace {
		spec.ReadOnlyAsDocker(volumes)
	}
	for _, v := range volumes {
		path, warnings, err := st.Volume(ctx, v, cfg.Volumes.RequireIDMap)
		if err != nil {
			return err
		}
		c.warn(ctx, warnings...)
		paths[v.Index] = path
	}
	if bin.Name != runtime.Runc {
		if err := st.Lock(); err != nil {
			return err
		}
	}
	flags, err := st.Flags()
	if err != nil {
		return err
	}
	c.plan.Staged = map[int]spec.StagedMount{}
	for _, v := range volumes {
		path := paths[v.Index]
		c.plan.Staged[v.Index] = spec.StagedMount{Source: path, Flags: flags[path], Kernel: v.Kernel}
	}
	if cfg.Nesting == config.NestingOff {
		return nil
	}
	return c.nest(st, s, cfg, rootfs) //nolint:contextcheck // a look-up in a volume has a bound of its own
}

// mountRootfs mounts the rootfs where the runtime is to find it; dir is where the
// caller has put it.
func (c *container) mountRootfs(ctx context.Context, st *stage.Stage, r *taskAPI.CreateTaskRequest, dir string, cfg config.Config) (err error) {
	c.upper = stage.Upper(r.Rootfs)
	switch {
	case !c.mapsRootfs(r.Rootfs):
		return st.PlainRootfs(r.Rootfs, c.plan.Rootfs)
	case c.handed != nil:
		c.upper = c.handed.Upper()
		c.snapshot, err = st.HandedRootfs(ctx, c.handed, c.record.Handed, c.plan.Rootfs, c.plan.Mapping, c.rootfsOptions(ctx, cfg))
	default:
		c.snapshot, err = st.Rootfs(ctx, r.Rootfs, dir, c.plan.Rootfs, c.plan.Mapping, c.rootfsOptions(ctx, cfg))
	}
	return err
}

// rootfsDir is the rootfs that a spec names.
func rootfsDir(bundle string, s *specs.Spec) string {
	if filepath.IsAbs(s.Root.Path) {
		return s.Root.Path
	}
	return filepath.Join(bundle, s.Root.Path)
}

// openTo lets the container's root, and nobody else, pass through a directory:
// the bundle, as containerd does for clients that mapped
// (core/runtime/v2/bundle_linux.go), and that of the staged mounts, which crun
// 1.8 looks up from inside.
func (c *container) openTo(dir string) error {
	gid, ok := c.plan.Mapping.RootGID()
	if !ok {
		return fmt.Errorf("the container's id mapping has no group 0: %w", spec.ErrRefused)
	}
	if err := c.kernel.Chown(dir, -1, int(gid)); err != nil {
		return fmt.Errorf("open directory to the container's root: %w", err)
	}
	if err := os.Chmod(dir, 0o710); err != nil {
		return fmt.Errorf("open directory to the container's root: %w", err)
	}
	return nil
}

// edit applies the plan to the spec and replaces config.json in one step:
// upstream reads it again later.
func (c *container) edit(ctx context.Context, bundle string, doc *spec.Document, cfg config.Config, bin runtime.Binary, probe *lxcfs.Probe) error {
	warnings, err := spec.Apply(doc.Spec, &c.plan)
	c.warn(ctx, append(c.plan.Warnings, warnings...)...)
	if err != nil {
		return err
	}
	if c.limits, err = c.findLimits(doc.Spec, bin); err != nil {
		return err
	}
	if c.limits != nil {
		c.limits.want("", doc.Spec.Process.Rlimits)
		doc.Spec.Process.Rlimits = nil
	}
	c.listen(ctx, doc.Spec, cfg, bin, probe)
	data, err := doc.JSON()
	if err != nil {
		return err
	}
	return c.writeSpec(bundle, data)
}

// writeSpec replaces config.json. The container's root may read it, as it could what
// containerd wrote: hooks that run as that root find the rootfs by it, among them
// those that NVIDIA's devices come with (CDI).
func (c *container) writeSpec(bundle string, data []byte) error {
	gid, _ := c.plan.Mapping.RootGID() // there is one: see openTo
	return atomicfile.Write(filepath.Join(bundle, "config.json"), data, 0o640, func(f *os.File) error { return c.kernel.Chown(f.Name(), -1, int(gid)) })
}

// request is the caller's request as upstream is to see it: with options of
// runc's type only (it asserts the type unchecked), and without the rootfs that
// is mounted already.
func (c *container) request(r *taskAPI.CreateTaskRequest, settings options.Settings, bin runtime.Binary) (*taskAPI.CreateTaskRequest, error) {
	out := proto.CloneOf(r)
	owner, ok := c.plan.Mapping.Root()
	if !ok {
		return nil, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	var err error
	if out.Options, err = settings.Any(bin, owner.UID, owner.GID); err != nil {
		return nil, err
	}
	if c.record.Rootfs {
		out.Rootfs = nil
	}
	return out, nil
}

// dockerNamespace is containerd's namespace of dockerd (--containerd-namespace).
const dockerNamespace = "moby"

func startProbe(ctx context.Context, cfg config.Config) *lxcfs.Probe {
	return lxcfs.StartProbe(ctx, cfg.LXCFS)
}

func (c *container) warn(ctx context.Context, warnings ...string) {
	for _, w := range warnings {
		log.G(ctx).Warn("isolate: " + w)
		c.record.Warnings = append(c.record.Warnings, w)
	}
}
