// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/pool"
	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage/stagetest"
	"github.com/isolate-shim/isolate/spec"
)

// etc has the databases of the host's accounts: nobody but root.
var etc string

// TestMain gives the tests a host of their own, whoever they run as.
func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "isolate-task-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		record.Root, record.Unmount = filepath.Join(dir, "run"), stagetest.Unmount
		snapshots = chown.NewStore(filepath.Join(dir, "lib"))
		etc = filepath.Join(dir, "etc")
		accounts = pool.FilesIn(etc)
		if err := os.MkdirAll(etc, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for name, text := range map[string]string{"passwd": "root:x:0:0::/:/bin/sh\n", "group": "root:x:0:\n", "subuid": "", "subgid": ""} {
			if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o600); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// upstream is containerd's service: it notes its calls and answers as it is told.
type upstream struct {
	taskAPI.TTRPCTaskService
	create func(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error)
	start  func(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error)
	err    error // of all others
	// deletes is how long Delete takes.
	deletes time.Duration

	mu    sync.Mutex
	calls []string
	last  any
}

func (u *upstream) call(name, id, exec string, request any) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls = append(u.calls, strings.TrimSuffix(strings.Join([]string{name, id, exec}, " "), " "))
	u.last = request
	return u.err
}

// called returns the calls since the last time.
func (u *upstream) called() (calls []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	calls, u.calls = u.calls, nil
	return calls
}

func (u *upstream) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	if err := u.call("create", r.ID, "", r); err != nil {
		return nil, err
	}
	if u.create == nil {
		return &taskAPI.CreateTaskResponse{}, nil
	}
	return u.create(ctx, r)
}

func (u *upstream) Start(ctx context.Context, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	if err := u.call("start", r.ID, r.ExecID, r); err != nil {
		return nil, err
	}
	if u.start == nil {
		return &taskAPI.StartResponse{Pid: 7}, nil
	}
	return u.start(ctx, r)
}

func (u *upstream) Exec(_ context.Context, r *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("exec", r.ID, r.ExecID, r)
}

func (u *upstream) Update(_ context.Context, r *taskAPI.UpdateTaskRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("update", r.ID, "", r)
}

func (u *upstream) Kill(_ context.Context, r *taskAPI.KillRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("kill", r.ID, r.ExecID, r)
}

func (u *upstream) Delete(_ context.Context, r *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	time.Sleep(u.deletes)
	return &taskAPI.DeleteResponse{ExitStatus: 3}, u.call("delete", r.ID, r.ExecID, r)
}

func (u *upstream) State(_ context.Context, r *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	return &taskAPI.StateResponse{ID: r.ID}, u.call("state", r.ID, r.ExecID, r)
}

func (u *upstream) Pids(_ context.Context, r *taskAPI.PidsRequest) (*taskAPI.PidsResponse, error) {
	return &taskAPI.PidsResponse{}, u.call("pids", r.ID, "", r)
}

func (u *upstream) Pause(_ context.Context, r *taskAPI.PauseRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("pause", r.ID, "", r)
}

func (u *upstream) Resume(_ context.Context, r *taskAPI.ResumeRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("resume", r.ID, "", r)
}

func (u *upstream) Checkpoint(_ context.Context, r *taskAPI.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("checkpoint", r.ID, "", r)
}

func (u *upstream) ResizePty(_ context.Context, r *taskAPI.ResizePtyRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("resize", r.ID, r.ExecID, r)
}

func (u *upstream) Wait(_ context.Context, r *taskAPI.WaitRequest) (*taskAPI.WaitResponse, error) {
	return &taskAPI.WaitResponse{}, u.call("wait", r.ID, r.ExecID, r)
}

func (u *upstream) Shutdown(_ context.Context, r *taskAPI.ShutdownRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, u.call("shutdown", r.ID, "", r)
}

// world is a shim over a fake upstream and a fake kernel, and what a client would
// send it.
type world struct {
	*Service

	t      *testing.T
	up     *upstream
	kernel *stagetest.Kernel
	cfg    config.Config
	bin    runtime.Binary
	ids    []idmap.Span // of this test alone
	dir    string
	ns     string // containerd's namespace, of this test alone
	spec   *specs.Spec
	mounts []*types.Mount
}

// pools gives each test ids of its own.
var pools struct {
	sync.Mutex
	next uint32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, up: &upstream{}, kernel: &stagetest.Kernel{}, dir: t.TempDir(), cfg: config.Default()}
	w.Service = serviceOver(w.up)
	w.Service.kernel = w.kernel
	w.Service.resolve = func(context.Context, string, *anypb.Any) (options.Settings, runtime.Binary, error) {
		return options.Settings{Config: w.cfg, Runc: &runcoptions.Options{Root: filepath.Join(w.dir, "runc")}}, w.bin, nil
	}
	pools.Lock()
	pools.next++
	first := 0x40000000 + pools.next*4*idmap.SlotSize
	w.ns = fmt.Sprintf("ns%d", pools.next)
	pools.Unlock()
	w.cfg.LXCFS.Mode = config.LXCFSOff
	w.cfg.Nesting = config.NestingOff
	w.ids = []idmap.Span{{First: idmap.HostID(first), Size: 4 * idmap.SlotSize}}
	w.cfg.IDs.Pool = []config.IDRange{{Span: w.ids[0]}}
	w.bin = runtime.Binary{Path: filepath.Join(w.dir, "bin/runc"), Name: runtime.Runc, Version: "1.3.0"}

	data, err := os.ReadFile("../../spec/testdata/own-ctr/in.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := spec.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	w.spec = doc.Spec
	w.spec.Linux.CgroupsPath = fmt.Sprintf("/isolate-%d-%s", os.Getpid(), w.ns) // nobody's
	for _, layer := range []string{"lower", "upper", "work", "bundle"} {
		w.mkdir(layer)
	}
	w.mounts = []*types.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + w.path("lower"), "upperdir=" + w.path("upper"), "workdir=" + w.path("work"),
	}}}
	t.Cleanup(w.nothingLeft)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) mkdir(name string) string {
	w.t.Helper()
	if err := os.MkdirAll(w.path(name), 0o755); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

func (w *world) ctx() context.Context {
	return namespaces.WithNamespace(w.t.Context(), w.ns)
}

// request writes the bundle and returns the request to create the container of it.
func (w *world) request(id string) *taskAPI.CreateTaskRequest {
	w.t.Helper()
	bundle := w.mkdir(filepath.Join("bundle", id))
	doc := spec.Document{Spec: w.spec}
	data, err := doc.JSON()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return &taskAPI.CreateTaskRequest{ID: id, Bundle: bundle, Rootfs: w.mounts}
}

// restored is request for a container that a checkpoint has: it has no process
// before it is started.
func (w *world) restored(id string) *taskAPI.CreateTaskRequest {
	w.t.Helper()
	r := w.request(id)
	r.Checkpoint = w.path("checkpoint")
	return r
}

// made makes a container.
func (w *world) made(id string) *container {
	w.t.Helper()
	if _, err := w.Create(w.ctx(), w.restored(id)); err != nil {
		w.t.Fatal(err)
	}
	w.up.called()
	c := w.container(id)
	if c == nil {
		w.t.Fatal("it is not known")
	}
	return c
}

// deleted deletes a container.
func (w *world) deleted(id string) {
	w.t.Helper()
	if _, err := w.Delete(w.ctx(), &taskAPI.DeleteRequest{ID: id}); err != nil {
		w.t.Error(err)
	}
}

// written is the spec that the runtime would read.
func (w *world) written(id string) *specs.Spec {
	w.t.Helper()
	doc, err := readBundle(w.path(filepath.Join("bundle", id)))
	if err != nil {
		w.t.Fatal(err)
	}
	return doc.Spec
}

// leases lists who has ids of this test's.
func (w *world) leases() (owners []string) {
	w.t.Helper()
	p, err := pool.Open(filepath.Join(record.Root, ".ids"), w.ids)
	if err != nil {
		w.t.Fatal(err)
	}
	entries, err := p.List(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Owner.Namespace == w.ns && (e.Held || e.InUse != "") {
			owners = append(owners, e.Owner.ID)
		}
	}
	return owners
}

// nothingLeft tells what is left of containers.
func (w *world) nothingLeft() {
	w.t.Helper()
	if entries, err := os.ReadDir(filepath.Join(record.Root, w.ns)); !errors.Is(err, os.ErrNotExist) {
		w.t.Errorf("left in the state directory: %v %v", entries, err)
	}
	if left := w.kernel.Mounted(); len(left) > 0 {
		w.t.Errorf("mounted are %q", left)
	}
	if left := w.leases(); len(left) > 0 {
		w.t.Errorf("ids are leased by %q", left)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.containers)+len(w.creations) > 0 {
		w.t.Errorf("known are %v, %v", w.containers, w.creations)
	}
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

var errBroken = fmt.Errorf("broken on purpose: %w", errdefs.ErrUnavailable)

// testProcess is a process that does nothing. It is nobody's container's.
type testProcess struct {
	*linuxproc.Process
	end func() // kills and awaits it
}

func (p testProcess) text() string { return strconv.Itoa(p.PID()) }

func sleeper(t *testing.T) testProcess {
	t.Helper()
	cmd := exec.Command("cat") // until the pipe is closed
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := linuxproc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(func() {
		end()
		p.Close()
	})
	return testProcess{p, end}
}
