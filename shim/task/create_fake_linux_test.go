// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// TestCreateAndDelete is the life of a container that nothing happens to.
func TestCreateAndDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	if got := w.kernel.Mounted(); len(got) != 1 || got[0] != w.path("bundle/a/rootfs") {
		t.Errorf("mounted are %q", got)
	}
	equal(t, "leased to", w.leases(), []string{"a"})
	if saved, err := record.Load(w.ns, "a"); err != nil || saved.Lease == nil || saved.Lease.First != c.held.First || !saved.Rootfs {
		t.Errorf("record is %+v, %v", saved, err)
	}
	m := w.written("a").Linux.UIDMappings
	if len(m) != 1 || m[0].ContainerID != 0 || m[0].HostID != uint32(c.held.First) || m[0].Size != idmap.SlotSize {
		t.Errorf("the runtime would map %v", m)
	}
	var whenUnmounted error
	w.kernel.Unmounting = func(string) { _, whenUnmounted = record.Load(w.ns, "a") }
	w.deleted("a")
	equal(t, "upstream was asked", w.up.called(), []string{"delete a"})
	if !w.kernel.Has("unmount rootfs") || whenUnmounted != nil {
		t.Errorf("the record has not outlived the mount: %v", whenUnmounted)
	}
}

// TestUpstreamsRequest has upstream see no rootfs, and the owner of the pipes.
func TestUpstreamsRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var seen *taskAPI.CreateTaskRequest
	var atCreate []string
	w.up.create = func(_ context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		seen, atCreate = r, w.leases()
		if _, err := record.Load(w.ns, "a"); err != nil {
			t.Errorf("there is no record when the runtime is run: %v", err)
		}
		return &taskAPI.CreateTaskResponse{}, nil
	}
	w.made("a")
	if len(seen.Rootfs) != 0 || len(seen.Options.GetValue()) == 0 {
		t.Errorf("it was %v", seen)
	}
	equal(t, "leased to", atCreate, []string{"a"})
	w.deleted("a")
}

// TestCreateFails at each stage: what was done before is undone, the record last.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	overlay := "overlay upper"
	for _, c := range []struct {
		stage string
		ruin  func(w *world, r *taskAPI.CreateTaskRequest)
		says  string
		is    func(error) bool // errdefs.IsUnknown if nil
		asked bool             // upstream
	}{
		{stage: "host", says: userns.ErrInside.Error(), is: errdefs.IsInvalidArgument, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			w.kernel.Fail, w.kernel.Err = "host", userns.ErrInside
		}},
		{stage: "namespace", says: "namespace is required", is: errdefs.IsFailedPrecondition, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.ns = "" }},
		{stage: "bundle", says: "read bundle", ruin: func(_ *world, r *taskAPI.CreateTaskRequest) { r.Bundle += "/absent" }},
		{stage: "options", says: "broken on purpose", is: errdefs.IsUnavailable, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			w.resolve = func(context.Context, string, *anypb.Any) (options.Settings, runtime.Binary, error) {
				return options.Settings{}, runtime.Binary{}, errBroken
			}
		}},
		{stage: "annotations", says: "no-such-setting", is: errdefs.IsInvalidArgument, ruin: func(w *world, r *taskAPI.CreateTaskRequest) {
			w.spec.Annotations = map[string]string{"io.containerd.isolate.no-such-setting": "1"}
			w.request(r.ID)
		}},
		{stage: "name", says: "identifier", is: errdefs.IsInvalidArgument, ruin: func(_ *world, r *taskAPI.CreateTaskRequest) { r.ID = "../a" }},
		{stage: "facts", says: "/absent", ruin: func(w *world, r *taskAPI.CreateTaskRequest) {
			w.join(specs.IPCNamespace, "/absent")
			w.request(r.ID)
		}},
		{stage: "decision", says: "rootfs is mounted with uidmap=", is: errdefs.IsInvalidArgument, ruin: func(_ *world, r *taskAPI.CreateTaskRequest) {
			r.Rootfs[0].Options = append(r.Rootfs[0].Options, "uidmap=0:100000:65536", "gidmap=0:100000:65536")
		}},
		{stage: "look at the rootfs", says: "rootfs: source", ruin: func(w *world, r *taskAPI.CreateTaskRequest) {
			r.Rootfs = []*types.Mount{{Type: "bind", Source: w.path("absent"), Options: []string{"rbind"}}}
		}},
		{stage: "cgroup", says: "cgroup", is: errdefs.IsInvalidArgument, ruin: func(w *world, r *taskAPI.CreateTaskRequest) {
			w.spec.Linux.CgroupsPath = "/../../x"
			w.request(r.ID)
		}},
		{stage: "pool", says: "in use", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.cfg.IDs.Size = 8 * idmap.SlotSize }},
		{stage: "pool of the host's", says: "root", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			w.cfg.IDs.Pool = []config.IDRange{{Span: idmap.Span{Size: idmap.SlotSize}}}
		}},
		{stage: "id", says: "reserve the id", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			if err := errors.Join(os.MkdirAll(record.Root, 0o711), os.WriteFile(filepath.Join(record.Root, w.ns), nil, 0o600)); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(w.sweep)
		}},
		{stage: "record", says: "record.json", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			if err := os.MkdirAll(filepath.Join(record.Root, w.ns, "a/record.json/in the way"), 0o711); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(w.sweep)
		}},
		{stage: "state directory", says: "open directory to the container's root", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.kernel.Fail = "chown a" }},
		{stage: "user namespace of the rootfs", says: "create user namespace", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.kernel.Fail = "userns" }},
		{stage: "rootfs", says: overlay, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.kernel.Fail = overlay }},
		{stage: "rootfs' mount", says: "attach rootfs", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.kernel.Fail = "attach rootfs" }},
		{stage: "spec", says: "config.json", ruin: func(w *world, _ *taskAPI.CreateTaskRequest) { w.kernel.Fail = "chown .config.json" }},
		{stage: "runtime", says: "broken on purpose", is: errdefs.IsUnavailable, asked: true, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			w.up.create = func(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
				return nil, errgrpc.ToGRPC(errBroken)
			}
		}},
		{stage: "settle", says: "nothing proves that process", asked: true, ruin: func(w *world, _ *taskAPI.CreateTaskRequest) {
			w.up.create = func(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
				return &taskAPI.CreateTaskResponse{Pid: uint32(os.Getpid())}, nil //nolint:gosec // process ids are positive
			}
		}},
	} {
		t.Run(c.stage, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ns := w.ns
			w.kernel.Unmounting = func(target string) {
				if _, err := record.Load(ns, "a"); err != nil {
					t.Errorf("%s is unmounted without a record: %v", target, err)
				}
			}
			r := w.restored("a")
			c.ruin(w, r)
			_, err := w.Create(w.ctx(), r)
			w.ns = ns // one of them has taken it away
			is := c.is
			if is == nil {
				is = errdefs.IsUnknown
			}
			if got := errgrpc.ToNative(err); err == nil || !is(got) || !strings.Contains(got.Error(), c.says) {
				t.Errorf("got %v", got)
			}
			if got := w.up.called(); (len(got) > 0) != c.asked {
				t.Errorf("upstream was asked: %q", got)
			}
			if w.container(r.ID) != nil {
				t.Error("the container is there")
			}
		})
	}
}

// sweep removes what a test has put in the way of records.
func (w *world) sweep() {
	if err := os.RemoveAll(filepath.Join(record.Root, w.ns)); err != nil {
		w.t.Error(err)
	}
}

// join has the container join a namespace.
func (w *world) join(kind specs.LinuxNamespaceType, path string) {
	for i, n := range w.spec.Linux.Namespaces {
		if n.Type == kind {
			w.spec.Linux.Namespaces[i].Path = path
			return
		}
	}
	w.spec.Linux.Namespaces = append(w.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

// TestUndoFails: the error of the undoing is told beside the one that led to it, and
// the record stays for the next try, which is that of the next container of this id.
func TestUndoFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.up.create = func(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		w.kernel.Fail = "unmount rootfs"
		return nil, errBroken
	}
	_, err := w.Create(w.ctx(), w.restored("a"))
	if err == nil || !strings.Contains(err.Error(), "broken on purpose") || !strings.Contains(err.Error(), "clean up container \"a\"") {
		t.Errorf("got %v", err)
	}
	if _, err := record.Load(w.ns, "a"); err != nil {
		t.Errorf("the record is gone: %v", err)
	}
	w.kernel.Fail, w.up.create = "", nil
	w.made("a")
	w.deleted("a")
}

// TestReportedProcessIsNotTheContainers: a runtime names a process of somebody else,
// to which nothing is done.
func TestReportedProcessIsNotTheContainers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := sleeper(t)
	pidFile := w.path("init.pid")
	if err := os.WriteFile(pidFile, []byte(p.text()), 0o600); err != nil {
		t.Fatal(err)
	}
	w.up.create = func(_ context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
		err := w.reported(report{Runtime: "runc", Command: "create", ID: r.ID, PIDFile: pidFile})
		if err == nil {
			t.Error("it was believed")
		}
		return nil, errBroken
	}
	_, err := w.Create(w.ctx(), w.request("a"))
	if err == nil || !strings.Contains(err.Error(), "is not to be believed, and nothing was done to that process") {
		t.Errorf("got %v", err)
	}
	if alive, err := p.ID().Alive(); !alive || err != nil {
		t.Errorf("the process has ended: %v", err)
	}
	if err := w.reported(report{Command: "create", ID: "a", PIDFile: pidFile}); err == nil {
		t.Error("a report about a container that is not being created was believed")
	}
	if err := w.reported(report{Command: "create", ID: "a", PIDFile: w.path("absent")}); err != nil {
		t.Errorf("without a report: %v", err)
	}
}

// TestEarlierContainerOfTheID: what an earlier one has left is undone first; one of
// another containerd that lives is left alone.
func TestEarlierContainerOfTheID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := sleeper(t)
	init := p.ID()
	left := &record.Record{Version: record.Version, Namespace: w.ns, ID: "a", Bundle: w.mkdir("elsewhere"), Init: &init, Rootfs: true}
	if err := errors.Join(left.Save(), w.kernel.Mount("", w.mkdir("elsewhere/rootfs"), "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Create(w.ctx(), w.restored("a")); !errdefs.IsAlreadyExists(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "another containerd") {
		t.Errorf("beside a live one: %v", err)
	}
	if w.kernel.Has("unmount") {
		t.Error("the other's rootfs was unmounted")
	}
	p.end()
	w.made("a")
	if !w.kernel.Has("unmount rootfs") {
		t.Error("the earlier one's rootfs is still mounted")
	}
	w.deleted("a")
}

// TestUnreadableRecord never stands in the way of an id.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(record.Root, w.ns, "a")
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.WriteFile(filepath.Join(dir, "record.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.made("a")
	w.deleted("a")
}

// TestAdopted: the caller has mapped, by a rootfs of its own making.
func TestAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mounts = nil
	w.mkdir("bundle/a/rootfs")
	w.spec.Root.Path = w.path("bundle/a/rootfs")
	w.join(specs.UserNamespace, "")
	first := uint32(w.cfg.IDs.Pool[0].First) - 2*idmap.SlotSize
	mapping := []specs.LinuxIDMapping{{HostID: first, Size: 1000}}
	w.spec.Linux.UIDMappings, w.spec.Linux.GIDMappings = mapping, mapping
	c := w.made("a")
	if c.record.Lease != nil || c.record.Rootfs || len(w.kernel.Mounted()) > 0 {
		t.Errorf("record is %+v, mounted are %q", c.record, w.kernel.Mounted())
	}
	if _, err := w.Create(w.ctx(), w.restored("b")); !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "adopt") {
		t.Errorf("the same ids once more: %v", err)
	}
	w.cfg.IDs.Adopt = config.AdoptShared
	w.made("b")
	w.deleted("a")
	w.deleted("b")
	mapping[0].HostID = 0
	if _, err := w.Create(w.ctx(), w.restored("c")); !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), "id 0 is its root") {
		t.Errorf("the host's root: %v", err)
	}
	w.spec.Linux.UIDMappings = nil
	if _, err := w.Create(w.ctx(), w.restored("d")); !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) {
		t.Errorf("without a mapping: %v", err)
	}
}
