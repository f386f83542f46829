// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestOptionsKeepTheRuntime sends options in each form that ctr has. The runtime
// that was configured, or named in the options, does everything, the runtime on
// the PATH nothing; also when the shim is dead and `delete` has to do it.
func TestOptionsKeepTheRuntime(t *testing.T) {
	for _, containerd := range []peer.Name{peer.Containerd24, peer.Containerd22, peer.Containerd17} {
		t.Run(string(containerd), func(t *testing.T) {
			rig.Require(t, rig.Root)
			onPath, configured, named := faultyRuntime(t, peer.Runc15), faultyRuntime(t, peer.Runc15), faultyRuntime(t, peer.Runc15)
			rig.Configure(t, oneRange+configured.config())
			h := hostOf(t, containerd)
			h.link(t, "runc", onPath.path)
			dir := t.TempDir()
			file := func(name, text string) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return path
			}
			h.run(t, "a", []string{"--runtime-config-path", file("cri.toml", "BinaryName = \""+named.path+"\"\n")}, "true").Must(t)
			for _, c := range []struct {
				name  string
				flags []string
				want  faulty
				ids   string
			}{
				{"none", nil, configured, "1879048192"},
				{"configuration of isolate", []string{"--runtime-config-path", file("own.toml", "[runtime]\nbinary = \""+named.path+"\"\n")}, named, "1879048192"},
				{"table of CRI", []string{"--runtime-config-path", filepath.Join(dir, "cri.toml")}, named, "1879048192"},
				{"configuration without a runtime", []string{"--runtime-config-path", file("other.toml", "[lxcfs]\nmode = \"off\"\n")}, configured, "1879048192"},
				{"user namespace", []string{"--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536", "--remap-labels"}, configured, "200000"},
			} {
				t.Run(c.name, func(t *testing.T) {
					before := rig.MustSnapshot(t)
					for _, f := range []faulty{onPath, configured, named} {
						f.calls(t)
					}
					only := func(want string) {
						t.Helper()
						for _, f := range []faulty{onPath, configured, named} {
							expect := ""
							if f == c.want {
								expect = want
							}
							if got := f.calls(t); got != expect {
								t.Errorf("the runtime in %s was asked to %q, want %q", f.dir, got, expect)
							}
						}
					}
					got := h.run(t, "a", c.flags, "cat", "/proc/self/uid_map").Must(t)
					if fields := strings.Fields(got); len(fields) != 3 || fields[1] != c.ids {
						t.Errorf("ids are %q", got)
					}
					only("create start delete")
					rig.MustMatch(t, before)

					h.start(t, "a", c.flags...)
					only("create start")
					killShim(t, "a")
					h.Container("a").Remove(t)
					rig.MustMatch(t, before)
					only("delete")
				})
			}
		})
	}
}

// link puts a program on containerd's PATH until the test ends.
func (h host) link(t testing.TB, name, target string) {
	t.Helper()
	file := filepath.Join(h.Bin, name)
	before, err := os.Readlink(file)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(target string) error { return errors.Join(os.Remove(file), os.Symlink(target, file)) }
	if err := replace(target); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replace(before); err != nil {
			t.Error(err)
		}
	})
}

// TestOptionsNotUnderstood demands errors that name what is wrong and where.
func TestOptionsNotUnderstood(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	dropIn := func(name, text string) func(t *testing.T) {
		return func(t *testing.T) {
			dir := "/etc/isolate/config.d"
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
		}
	}
	dir := t.TempDir()
	file := func(text string) []string {
		path := filepath.Join(dir, "options.toml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"--runtime-config-path", path}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T)
		text    string // of the file that --runtime-config-path names
		flags   []string
		want    []string
	}{
		{name: "key", prepare: func(t *testing.T) { rig.Configure(t, oneRange+"[runtime]\nbinaries = \"runc\"\n") }, want: []string{"config.toml:4", "runtime.binaries", "unknown key"}},
		{name: "value", prepare: func(t *testing.T) { rig.Configure(t, "nesting = \"some\"\n") }, want: []string{"config.toml:1", "nesting", "full", "off"}},
		{name: "type", prepare: func(t *testing.T) { rig.Configure(t, "[ids]\nsize = \"many\"\n") }, want: []string{"config.toml:2", "ids.size", "integer"}},
		{name: "syntax", prepare: func(t *testing.T) { rig.Configure(t, "[ids\n") }, want: []string{"config.toml:1"}},
		{name: "key in a drop-in", prepare: dropIn("50-x.toml", "\n\nshiny = 1\n"), want: []string{"config.d/50-x.toml:3", "shiny", "unknown key"}},
		{name: "key in options", text: "BinaryNames = \"x\"\n", want: []string{"options.toml:1", "BinaryNames", "unknown key"}},
		{name: "table in options", text: "[shiny]\nx = 1\n", want: []string{"options.toml:1", "shiny", "unknown table"}},
		{name: "type in options", text: "\nSystemdCgroup = \"yes\"\n", want: []string{"options.toml:2", "SystemdCgroup"}},
		{name: "runtime in options", text: "BinaryName = \"/nope\"\n", want: []string{"/nope", "OCI runtime not found"}},
		{name: "absent file", flags: []string{"--runtime-config-path", "/nope/options.toml"}, want: []string{"/nope/options.toml", "no such file"}},
		{name: "relative file", flags: []string{"--runtime-config-path", "options.toml"}, want: []string{"options.toml", "absolute"}},
		{name: "directory", flags: []string{"--runtime-config-path", "/etc"}, want: []string{"/etc", "not a regular file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			if c.prepare != nil {
				c.prepare(t)
			}
			flags := c.flags
			if c.text != "" {
				flags = file(c.text)
			}
			refused(t, h.run(t, "a", flags, "true"), c.want...)
			rig.MustMatch(t, before)
			if c.prepare == nil {
				r := h.Ctr(t.Context(), append([]string{"plugins", "inspect-runtime", "--runtime", shimName}, flags...)...)
				refused(t, r, c.want...)
			}
		})
	}
}

// apiContext is how clients of the API say which namespace they mean.
func apiContext(t testing.TB) metadata.MD {
	t.Helper()
	return metadata.Pairs(namespaces.GRPCHeader, "default")
}

// dialNode connects to containerd's API.
func dialNode(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestOptionsOfOtherClients sends what ctr does not: options that a client of the
// API may store with a container, right or wrong.
func TestOptionsOfOtherClients(t *testing.T) {
	for _, containerd := range []peer.Name{peer.Containerd24, peer.Containerd22, peer.Containerd17} {
		t.Run(string(containerd), func(t *testing.T) {
			rig.Require(t, rig.Root)
			rig.Configure(t, oneRange)
			named := faultyRuntime(t, peer.Runc15)
			h := hostOf(t, containerd)
			h.Ctr(t.Context(), "containers", "create", "--runtime", shimName, h.ref, "model", "true").Must(t)
			ctx := metadata.NewOutgoingContext(t.Context(), apiContext(t))
			api := containersapi.NewContainersClient(dialNode(t, h.Address))
			model, err := api.Get(ctx, &containersapi.GetContainerRequest{ID: "model"})
			if err != nil {
				t.Fatal(err)
			}
			pack := func(m proto.Message) *anypb.Any {
				value, err := proto.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}
			}
			const runcType, runtimeType = "containerd.runc.v1.Options", "runtimeoptions.v1.Options"
			// The runtime is asked what it is, and that is kept.
			warm := pack(&runtimeoptions.Options{ConfigBody: []byte("BinaryName = \"" + named.path + "\"\n")})
			for i, c := range []struct {
				name string
				in   *anypb.Any
				runs bool
				want []string
			}{
				{"text of CRI", warm, true, nil},
				{"runc's", pack(&runcoptions.Options{BinaryName: named.path, IoUid: 5}), true, nil},
				{"unknown key", pack(&runtimeoptions.Options{ConfigBody: []byte("\nshiny = 1\n")}), false, []string{"runtime options:2", "shiny", "unknown key"}},
				{"another shim's", &anypb.Any{TypeUrl: "containerd.runhcs.v1.Options", Value: []byte("\x08\x01")}, false, []string{"containerd.runhcs.v1.Options"}},
				{"no type at all", &anypb.Any{TypeUrl: "", Value: []byte("\x08\x01")}, false, []string{"type"}},
				{"garbage as runc's", &anypb.Any{TypeUrl: runcType, Value: []byte("\xff\xff\xff")}, false, []string{"options"}},
				{"garbage as CRI's", &anypb.Any{TypeUrl: runtimeType, Value: []byte("\xff\xff\xff")}, false, []string{"options"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					before := rig.MustSnapshot(t)
					id := fmt.Sprintf("o%d", i)
					record := proto.CloneOf(model.Container)
					record.ID, record.Runtime.Options = id, c.in
					if _, err := api.Create(ctx, &containersapi.CreateContainerRequest{Container: record}); err != nil {
						t.Fatal(err)
					}
					named.calls(t)
					r := h.Ctr(t.Context(), "tasks", "start", id)
					if c.runs {
						r.Must(t)
						if got := named.calls(t); !strings.HasSuffix(got, "create start delete") {
							t.Errorf("the named runtime was asked to %q", got)
						}
					} else {
						refused(t, r, c.want...)
						t.Log(strings.TrimSpace(r.Stderr))
					}
					if strings.Contains(r.Stderr, "panic") {
						t.Error(r.Stderr)
					}
					// ctr has left the task of a program that has ended.
					h.Ctr(t.Context(), "tasks", "rm", "--force", id)
					if _, err := api.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id}); err != nil {
						t.Error(err)
					}
					if !c.runs {
						rig.MustMatch(t, before)
					}
				})
			}
			h.Container("model").Remove(t)
		})
	}
}

// TestInspectRuntime reads what the kubelet wants to know, with each OCI runtime,
// also one that has no such command.
func TestInspectRuntime(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	for _, name := range []peer.Name{peer.Runc15, peer.Runc11, peer.Crun121, peer.Crun18} {
		t.Run(string(name), func(t *testing.T) {
			p, err := peer.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			binary := p.Program(p.Programs()[0])
			rig.Configure(t, fmt.Sprintf("[runtime]\nbinary = %q\n", binary))
			var info struct {
				Name    string
				Options struct {
					BinaryName string `json:"binary_name"`
				}
				Features struct {
					MountOptions []string
					Linux        struct {
						Namespaces      []string
						MountExtensions struct {
							IDMap struct{ Enabled bool }
						}
					}
				}
				Annotations map[string]string
			}
			text := h.Ctr(t.Context(), "plugins", "inspect-runtime", "--runtime", shimName).Must(t)
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			if info.Name != shimName || info.Options.BinaryName != binary ||
				!slices.Contains(info.Features.Linux.Namespaces, "user") || !info.Features.Linux.MountExtensions.IDMap.Enabled {
				t.Errorf("got %s", text)
			}
		})
	}
}

// TestInfo asks the shim itself, as containerd does.
func TestInfo(t *testing.T) {
	rig.Require(t, rig.Root)
	programs, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shim := programs["containerd-shim-isolate-v1"]
	p, err := peer.Get(t.Context(), peer.Runc15)
	if err != nil {
		t.Fatal(err)
	}
	rig.Configure(t, "[runtime]\nbinary = \""+p.Program("runc")+"\"\n")
	// Two strings, since the answer is not text.
	r := rig.Exec(t.Context(), "sh", "-c", shim+" -info </dev/null")
	var info types.RuntimeInfo
	if err := proto.Unmarshal([]byte(r.Stdout), &info); r.Code != 0 || err != nil || info.Name != shimName || info.Features == nil {
		t.Errorf("%v, %+v, %v", r.Err(), &info, err)
	}
	r = rig.Exec(t.Context(), "sh", "-c", "printf '\\377\\377' | "+shim+" -info")
	refused(t, r, "runtime options on stdin")
	if r := rig.Exec(t.Context(), shim, "-v"); r.Code != 0 || !strings.Contains(r.Stdout, "isolate") {
		t.Errorf("%+v", r)
	}
}
