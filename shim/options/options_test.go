// SPDX-License-Identifier: Apache-2.0

package options

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testprogram"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

func pack(t testing.TB, prefix string, m proto.Message) *anypb.Any {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: prefix + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

// all has every field set, by reflection: a field of a newer containerd that is
// not kept fails the test.
func all(t testing.TB) *runcoptions.Options {
	t.Helper()
	o := &runcoptions.Options{
		NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shim", IoUid: 7, IoGid: 8,
		BinaryName: "crun", Root: "/run/r", SystemdCgroup: true,
		CriuImagePath: "/i", CriuWorkPath: "/w",
		TaskApiAddress: "a", TaskApiVersion: 3, //nolint:staticcheck // clients may still send them
	}
	fields := o.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !o.ProtoReflect().Has(fields.Get(i)) {
			t.Fatalf("field %s of runc's options is not handled", fields.Get(i).Name())
		}
	}
	return o
}

const criBody = `BinaryName = "/usr/bin/crun"
NoPivotRoot = true
Root = "/run/r"
ShimCgroup = "/shim"
SystemdCgroup = true

[lxcfs]
mode = "off"
`

func TestNormalise(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "isolate.toml")
	if err := os.WriteFile(file, []byte(criBody), 0o600); err != nil {
		t.Fatal(err)
	}
	fromTypeurl, err := typeurl.MarshalAnyToProto(all(t))
	if err != nil {
		t.Fatal(err)
	}
	fromBody := &runcoptions.Options{NoPivotRoot: true, ShimCgroup: "/shim"}
	for _, c := range []struct {
		name     string
		in       *anypb.Any
		wantRunc *runcoptions.Options
		wantName string
		wantBody string
	}{
		{"nil", nil, &runcoptions.Options{}, "", ""},
		{"empty", &anypb.Any{}, &runcoptions.Options{}, "", ""},
		{"runc", pack(t, "", all(t)), all(t), "", ""},
		{"runc, prefixed", pack(t, "types.containerd.io/", all(t)), all(t), "", ""},
		{"runc, of google", pack(t, "type.googleapis.com/", all(t)), all(t), "", ""},
		{"runc, by typeurl", fromTypeurl, all(t), "", ""},
		{"runc, nothing set", pack(t, "", &runcoptions.Options{}), &runcoptions.Options{}, "", ""},
		{"runtime, nothing set", pack(t, "", &runtimeoptions.Options{}), &runcoptions.Options{}, "", ""},
		{"runtime, type alone", pack(t, "", &runtimeoptions.Options{TypeUrl: "x"}), &runcoptions.Options{}, "", ""},
		{"body", pack(t, "", &runtimeoptions.Options{ConfigBody: []byte(criBody)}), fromBody, bodyName, criBody},
		{"body, prefixed", pack(t, "types.containerd.io/", &runtimeoptions.Options{ConfigBody: []byte(criBody)}), fromBody, bodyName, criBody},
		{"path", pack(t, "", &runtimeoptions.Options{ConfigPath: file}), fromBody, file, criBody},
		{"path wins over body", pack(t, "", &runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("x")}), fromBody, file, criBody},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := normalise(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got.Runc, c.wantRunc) || got.ConfigName != c.wantName || string(got.ConfigBody) != c.wantBody {
				t.Errorf("got %v %q %q", got.Runc, got.ConfigName, got.ConfigBody)
			}
		})
	}
}

func TestWhatIsNotUnderstoodIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	body := func(text string) *anypb.Any {
		return pack(t, "", &runtimeoptions.Options{ConfigBody: []byte(text)})
	}
	path := func(p string) *anypb.Any { return pack(t, "", &runtimeoptions.Options{ConfigPath: p}) }
	for _, c := range []struct {
		name string
		in   *anypb.Any
		want []string
	}{
		{"another type", &anypb.Any{TypeUrl: "types.containerd.io/containerd.runhcs.v1.Options"}, []string{`"types.containerd.io/containerd.runhcs.v1.Options"`}},
		{"a value without type", &anypb.Any{Value: []byte("x")}, []string{`type ""`}},
		{"runc garbage", &anypb.Any{TypeUrl: runcName, Value: []byte("\xff\xff\xff")}, []string{"decode", runcName}},
		{"runtime garbage", &anypb.Any{TypeUrl: runtimeName, Value: []byte("\xff\xff\xff")}, []string{"decode", runtimeName}},
		{"no TOML", body("{"), []string{bodyName + ":1"}},
		{"task key of the wrong type", body("\nIoUid = \"x\""), []string{"runtime options", "IoUid"}},
		{"relative path", path("isolate.toml"), []string{`"isolate.toml"`, "absolute"}},
		{"absent file", path("/nowhere/isolate.toml"), []string{"ConfigPath", "/nowhere/isolate.toml"}},
		{"directory", path(dir), []string{dir, "not a regular file"}},
		{"a FIFO, which would block", path(fifo), []string{fifo, "not a regular file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := normalise(c.in)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
		})
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	bin := runtime.Binary{Path: "/usr/bin/crun"}
	cfg := config.Default()
	cfg.Runtime = config.Runtime{Binary: "runc", Root: "/run/cfg", SystemdCgroup: true}
	kept := all(t)
	kept.BinaryName, kept.IoUid, kept.IoGid = "/usr/bin/crun", 100, 101
	for _, c := range []struct {
		name string
		res  result
		cfg  config.Config
		want *runcoptions.Options
	}{
		{"nothing said", result{}, config.Default(), &runcoptions.Options{BinaryName: "/usr/bin/crun", IoUid: 100, IoGid: 101}},
		{"configured", result{Runc: &runcoptions.Options{}}, cfg, &runcoptions.Options{BinaryName: "/usr/bin/crun", Root: "/run/cfg", SystemdCgroup: true, IoUid: 100, IoGid: 101}},
		{"requested", result{Runc: all(t)}, cfg, kept},
	} {
		if got := build(c.res, c.cfg, bin, 100, 101); !proto.Equal(got, c.want) {
			t.Errorf("%s: got %v\nwant %v", c.name, got, c.want)
		}
	}
}

// stub makes a runtime that says who it is.
func stub(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	body := "#!/bin/sh\n[ \"$1\" = --version ] && echo runc version 9 && exit 0\nexit 1\n"
	if err := testprogram.Write(path, body); err != nil {
		t.Fatal(err)
	}
}

// The regression this package exists for: the same binary on every path.
func TestResolveTakesTheSameRuntimeOnEveryPath(t *testing.T) {
	dir := t.TempDir()
	finder := runtime.Finder{CacheDir: dir + "/cache"}
	onPath, configured, requested := dir+"/path/runc", dir+"/conf/runc", dir+"/req/runc"
	for _, p := range []string{onPath, configured, requested} {
		stub(t, p)
	}
	t.Setenv("PATH", dir+"/path:"+os.Getenv("PATH"))
	etc, empty := dir+"/etc", dir+"/empty"
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(etc+"/config.toml", []byte("[runtime]\nbinary = \""+configured+"\"\nroot = \"/run/cfg\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	userns := &runcoptions.Options{IoUid: 100000, IoGid: 100000} // what CRI adds for a user namespace
	asked := &runcoptions.Options{IoUid: 100000, BinaryName: requested}
	for _, c := range []struct {
		name, etc string
		in        *anypb.Any
		want      string
		root      string
	}{
		{"no options", etc, nil, configured, "/run/cfg"},
		{"user namespace", etc, pack(t, "", userns), configured, "/run/cfg"},
		{"runc options", etc, pack(t, "", asked), requested, "/run/cfg"},
		{"CRI table", etc, pack(t, "", &runtimeoptions.Options{ConfigBody: []byte("BinaryName = \"" + requested + "\"\nRoot = \"/run/req\"")}), requested, "/run/req"},
		{"CRI table without it", etc, pack(t, "", &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = false")}), configured, "/run/cfg"},
		{"nobody said", empty, pack(t, "", userns), onPath, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, bin, err := resolve(t.Context(), finder, c.etc, c.in)
			if err != nil {
				t.Fatal(err)
			}
			if bin.Path != c.want {
				t.Errorf("runtime %q, want %q", bin.Path, c.want)
			}
			packed, err := s.Any(bin, 165536, 165537)
			if err != nil {
				t.Fatal(err)
			}
			// What containerd's task service does with it.
			v, err := typeurl.UnmarshalAny(packed)
			if err != nil {
				t.Fatal(err)
			}
			o, ok := v.(*runcoptions.Options)
			if !ok {
				t.Fatalf("upstream would panic on %T", v)
			}
			if o.GetBinaryName() != c.want || o.GetRoot() != c.root || o.GetIoUid() != 165536 || o.GetIoGid() != 165537 {
				t.Errorf("%v", o)
			}
		})
	}

	t.Run("an unknown key names itself", func(t *testing.T) {
		_, _, err := resolve(t.Context(), finder, etc, pack(t, "", &runtimeoptions.Options{ConfigBody: []byte("BinaryNam = \"x\"")}))
		if err == nil || !strings.Contains(err.Error(), "runtime options:1: BinaryNam") {
			t.Error(err)
		}
	})
	t.Run("a broken host file is an error", func(t *testing.T) {
		if err := os.WriteFile(etc+"/config.toml", []byte("x = 1"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := resolve(t.Context(), finder, etc, nil)
		if err == nil || !strings.Contains(err.Error(), etc+"/config.toml:1: x") {
			t.Error(err)
		}
	})
}

func FuzzNormalise(f *testing.F) {
	f.Add(runcName, pack(f, "", all(f)).GetValue())
	f.Add("types.containerd.io/"+runtimeName, pack(f, "", &runtimeoptions.Options{ConfigBody: []byte(criBody)}).GetValue())
	f.Add(runtimeName, pack(f, "", &runtimeoptions.Options{ConfigPath: "/nowhere"}).GetValue())
	f.Add("", []byte(nil))
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		before := bytes.Clone(value)
		res, err := normalise(&anypb.Any{TypeUrl: url, Value: value})
		if !bytes.Equal(before, value) {
			t.Error("the request changed")
		}
		if err != nil {
			if errors.Is(err, errUnknown) || strings.Contains(err.Error(), "ConfigPath") {
				return
			}
			t.Fatalf("neither unknown nor unreadable: %v", err)
		}
		if res.Runc == nil {
			t.Fatal("no options")
		}
		o := build(res, config.Default(), runtime.Binary{Path: "/x"}, idmap.HostID(1), 2)
		if o.GetBinaryName() != "/x" || o.GetIoUid() != 1 || o.GetIoGid() != 2 {
			t.Errorf("%v", o)
		}
	})
}
