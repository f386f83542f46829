// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

func TestToGRPC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		is   func(error) bool
		says string
	}{
		{"refused", fmt.Errorf("volume %q: %w", "/v", spec.ErrRefused), errdefs.IsInvalidArgument, `volume "/v"`},
		{"refused, joined with an error of the cleanup", errors.Join(fmt.Errorf("x: %w", spec.ErrRefused), errors.New("y")), errdefs.IsInvalidArgument, "y"},
		{"not found", fmt.Errorf("container: %w", errdefs.ErrNotFound), errdefs.IsNotFound, "container"},
		{"upstream's", errgrpc.ToGRPC(fmt.Errorf("container: %w", errdefs.ErrAlreadyExists)), errdefs.IsAlreadyExists, "container"},
		{"other", errors.New("disk is full"), errdefs.IsUnknown, "disk is full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := errgrpc.ToNative(toGRPC(c.err))
			if !c.is(got) || !strings.Contains(got.Error(), c.says) {
				t.Errorf("%v became %v", c.err, got)
			}
		})
	}
	if toGRPC(nil) != nil {
		t.Error("success is an error")
	}
}

func TestReadBundle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := readBundle(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty bundle: %v", err)
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(`{"ociVersion":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readBundle(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("cut off spec: %v", err)
	}
}

// creationOf is a creation of a container that nothing is asked for.
func creationOf(c *container) *creation {
	return &creation{container: c, service: &Service{kernel: stage.Linux}, request: &taskAPI.CreateTaskRequest{}, source: rootfs.Parse(nil, "/rootfs")}
}

// TestRequest holds upstream's request to what upstream can take: options of
// runc's type with the chosen binary, and no rootfs that is mounted already.
func TestRequest(t *testing.T) {
	t.Parallel()
	sent, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigPath: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	in := &taskAPI.CreateTaskRequest{ID: "a", Options: sent, Rootfs: []*types.Mount{{Type: "overlay"}}}
	before := proto.CloneOf(in)
	settings := options.Settings{Config: config.Default(), Runc: &runcoptions.Options{BinaryName: "crun", Root: "/r", IoUid: 1}}
	bin := runtime.Binary{Path: "/usr/bin/crun"}
	for _, mounted := range []bool{true, false} {
		c := creationOf(&container{record: &record.Record{Rootfs: mounted}})
		c.request, c.settings, c.bin = in, settings, bin
		c.plan.Mapping = idmap.Contiguous(200000, 65536)
		out, err := c.upstreamRequest()
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(in, before) {
			t.Error("the caller's request changed")
		}
		got, err := typeurl.UnmarshalAny(out.Options)
		if err != nil {
			t.Fatal(err)
		}
		want := &runcoptions.Options{BinaryName: "/usr/bin/crun", Root: "/r", IoUid: 200000, IoGid: 200000}
		if o, ok := got.(*runcoptions.Options); !ok || !proto.Equal(o, want) {
			t.Errorf("options are %v", got)
		}
		if (len(out.Rootfs) == 0) != mounted {
			t.Errorf("mounted %v: rootfs is %v", mounted, out.Rootfs)
		}
	}
	c := creationOf(&container{record: &record.Record{}})
	c.plan.Mapping = idmap.Mapping{UIDs: []idmap.Range{{Container: 1, Host: 5, Size: 1}}}
	if _, err := c.upstreamRequest(); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("mapping without root: %v", err)
	}
}

func TestOpenTo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := creationOf(&container{}).openTo(dir); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("mapping without group 0: %v", err)
	}
	gid := idmap.HostID(os.Getgid())
	c := creationOf(&container{})
	c.plan.Mapping = idmap.Contiguous(gid, 1)
	if err := c.openTo(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o710 {
		t.Errorf("%v, %v", info, err)
	}
	if err := c.openTo(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent directory: %v", err)
	}
}

// TestSpecIsForTheContainersRoot: hooks of CDI devices, which run as the container's
// root, could not read the spec.
func TestSpecIsForTheContainersRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := creationOf(&container{})
	c.request.Bundle = dir
	c.plan.Mapping = idmap.Contiguous(idmap.HostID(os.Getgid()), 1)
	if err := c.writeSpec([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "config.json")); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestAsSandbox(t *testing.T) {
	t.Parallel()
	m := idmap.Contiguous(200000, 65536)
	c := &container{id: "a", record: &record.Record{Mapping: m}}
	c.plan.Mode = spec.ModeOwn
	if got := c.asSandbox(); got != nil {
		t.Errorf("without a process: %+v", got)
	}
	c.record.Init = &proc.ID{PID: 7}
	got := c.asSandbox()
	if got == nil || got.ID != "a" || got.Mode != spec.ModeOwn || got.Userns != "/proc/7/ns/user" || len(got.Mapping.UIDs) != 1 {
		t.Errorf("got %+v", got)
	}
	// Who joins one that has joined shares the first one's ids.
	c.plan.Mode, c.sandbox = spec.ModeJoin, &spec.Sandbox{Mode: spec.ModeAdopt}
	if got := c.asSandbox(); got == nil || got.Mode != spec.ModeAdopt {
		t.Errorf("joined: %+v", got)
	}
}

// TestMethodsAreComplete keeps a value of the setting from meaning "auto"
// because nobody has translated it.
func TestMethodsAreComplete(t *testing.T) {
	t.Parallel()
	for _, k := range config.Keys() {
		if k.Name != "rootfs.method" {
			continue
		}
		for _, v := range k.Values {
			_, ok := methods[config.Choice(v)]
			if chowns := chownPolicy(config.Rootfs{Method: config.Choice(v)}) == stage.ChownAlways; ok == chowns {
				t.Errorf("%q is translated: %v, means chown: %v", v, ok, chowns)
			}
		}
		if len(methods)+1 != len(k.Values) {
			t.Errorf("%d methods and chown for %d values", len(methods), len(k.Values))
		}
	}
}

func TestChownPolicy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   config.Rootfs
		want stage.ChownPolicy
	}{
		{config.Default().Rootfs, stage.ChownNever},
		{config.Rootfs{Method: config.RootfsPrivate, Fallback: config.FallbackChown}, stage.ChownFallback},
		{config.Rootfs{Method: config.RootfsChown, Fallback: config.FallbackRefuse}, stage.ChownAlways},
	} {
		if got := chownPolicy(test.in); got != test.want {
			t.Errorf("chownPolicy(%+v) = %d, want %d", test.in, got, test.want)
		}
	}
}
