// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestParseInvocation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want invocation
		err  bool
	}{
		{"nothing", nil, invocation{}, false},
		{
			"start of 2.x",
			[]string{"-namespace", "k8s.io", "-address", "/c.sock", "-publish-binary", "/bin/containerd", "-id", "a", "-debug", "start"},
			invocation{namespace: "k8s.io", id: "a", address: "/c.sock", action: "start", debug: true},
			false,
		},
		{
			"delete with a bundle",
			[]string{"-namespace", "default", "-address", "/c.sock", "-publish-binary", "", "-id", "a", "-bundle", "/b", "delete"},
			invocation{namespace: "default", id: "a", address: "/c.sock", bundle: "/b", action: "delete"},
			false,
		},
		{"serve", []string{"-namespace", "default", "-id", "a", "-address", "/c.sock"}, invocation{namespace: "default", id: "a", address: "/c.sock"}, false},
		{"sockets", []string{"--socket=/s", "--debug-socket", "/d", "-id=a", "start"}, invocation{id: "a", action: "start"}, false},
		{"info", []string{"-info"}, invocation{}, false},
		{"version", []string{"-v"}, invocation{}, false},
		{"an id that looks like an action", []string{"-id", "start"}, invocation{id: "start"}, false},
		{"after the action nothing counts", []string{"start", "-id", "a"}, invocation{action: "start"}, false},
		{"unknown flag", []string{"-new", "start"}, invocation{}, true},
		{"missing value", []string{"-id"}, invocation{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseInvocation(c.args)
			if (err != nil) != c.err || !c.err && got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBootstraps(t *testing.T) {
	t.Parallel()
	inv := invocation{namespace: "default", id: "a", action: "start"}
	options := marshal(t, &runcoptions.Options{BinaryName: "crun", IoUid: 5})
	for _, c := range []struct {
		name  string
		input []byte
		want  bool
	}{
		{"nothing, as of 1.7 without options", nil, false},
		{"bootstrap", marshal(t, &bootapi.BootstrapParams{InstanceID: "a", Namespace: "default", ContainerdVersion: "2.4"}), true},
		{"bootstrap of another container", marshal(t, &bootapi.BootstrapParams{InstanceID: "b", Namespace: "default"}), false},
		{"bootstrap in another namespace", marshal(t, &bootapi.BootstrapParams{InstanceID: "a", Namespace: "moby"}), false},
		{"options", options, false},
		{"options in an Any", marshal(t, &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: options}), false},
		{"an Any that says the id", marshal(t, &anypb.Any{TypeUrl: "a", Value: []byte("x")}), false},
		{"no protobuf", []byte("\xff\xff"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := bootstraps(c.input, inv); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if bootstraps(nil, invocation{}) {
		t.Error("no input bootstraps a shim without id")
	}
}

// starter is a shim of which only start is called.
type starter struct {
	shim.Shim
	params    *bootapi.BootstrapParams
	namespace string
	err       error
}

func (s *starter) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	s.params = params
	s.namespace, _ = namespaces.Namespace(ctx)
	if s.err != nil {
		return nil, s.err
	}
	return &bootapi.BootstrapResult{Version: 3, Address: "unix:///s", Protocol: "ttrpc"}, nil
}

func stdin(t *testing.T, input []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(name, input, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var startArgs = []string{"-namespace", "moby", "-address", "/c.sock", "-publish-binary", "/bin/containerd", "-id", "a", "start"}

func TestLegacyStart(t *testing.T) {
	t.Chdir(t.TempDir()) // the bundle
	t.Setenv(maxVersionEnv, "2")
	t.Setenv("TTRPC_ADDRESS", "/c.sock.ttrpc")
	m, out := &starter{}, bytes.Buffer{}
	done, err := legacyStart(t.Context(), m, startArgs, stdin(t, nil), &out)
	if err != nil || !done {
		t.Fatal(done, err)
	}
	var answer map[string]any
	dec := json.NewDecoder(&out)
	if err := dec.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	// 1.7 refuses version 3, and reads these three keys.
	if len(answer) != 3 || answer["version"] != 2.0 || answer["address"] != "unix:///s" || answer["protocol"] != "ttrpc" {
		t.Errorf("answered %v", answer)
	}
	if rest, err := io.ReadAll(dec.Buffered()); err != nil || strings.TrimSpace(string(rest)) != "" {
		t.Errorf("answered %q as well", rest)
	}
	want := &bootapi.BootstrapParams{
		InstanceID: "a", Namespace: "moby", LogLevel: bootapi.LogLevel_LOG_LEVEL_INFO,
		ContainerdGrpcAddress: "/c.sock", ContainerdTtrpcAddress: "/c.sock.ttrpc",
	}
	if !proto.Equal(m.params, want) || m.namespace != "moby" {
		t.Errorf("started with %v in %q", m.params, m.namespace)
	}
	if got, err := os.ReadFile("address"); err != nil || string(got) != "unix:///s" {
		t.Errorf("containerd 1.7 will find %q, %v after a restart", got, err)
	}
}

func TestLegacyStartPassesDebug(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(maxVersionEnv, "2")
	m := &starter{}
	done, err := legacyStart(t.Context(), m, append([]string{"-debug"}, startArgs...), stdin(t, []byte("options")), io.Discard)
	if err != nil || !done || m.params.LogLevel != bootapi.LogLevel_LOG_LEVEL_DEBUG {
		t.Errorf("%v, %v, %v", done, err, m.params)
	}
}

// TestOldContainerdIsNamed: containerd 1.6 took the answer for an address, and said
// that it could not dial.
func TestOldContainerdIsNamed(t *testing.T) {
	t.Setenv(maxVersionEnv, "")
	m, out := &starter{}, bytes.Buffer{}
	done, err := legacyStart(t.Context(), m, startArgs, stdin(t, nil), &out)
	if !done || !errors.Is(err, errTooOld) || m.params != nil || out.Len() > 0 {
		t.Errorf("%v, %v, started with %v, printed %q", done, err, m.params, out.String())
	}
}

func TestLegacyStartReportsErrors(t *testing.T) {
	t.Setenv(maxVersionEnv, "2")
	out := bytes.Buffer{}
	cause := errors.New("no room")
	done, err := legacyStart(t.Context(), &starter{err: cause}, startArgs, stdin(t, nil), &out)
	if !errors.Is(err, cause) || !done || out.Len() > 0 {
		t.Errorf("%v, %v, printed %q", done, err, out.String())
	}
}

func TestLegacyStartLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"delete":      {"-namespace", "moby", "-id", "a", "delete"},
		"serve":       {"-namespace", "moby", "-id", "a"},
		"info":        {"-info"},
		"a new flag":  {"-new", "start"},
		"no argument": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, in := &starter{}, stdin(t, []byte("input"))
			done, err := legacyStart(t.Context(), m, args, in, io.Discard)
			if done || err != nil || m.params != nil {
				t.Errorf("%v, %v, %v", done, err, m.params)
			}
			if rest, err := io.ReadAll(in); err != nil || string(rest) != "input" {
				t.Errorf("stdin holds %q, %v", rest, err)
			}
		})
	}
}

// Not parallel: os.Stdin is replaced.
func TestLegacyStartReplaysBootstrap(t *testing.T) {
	old := os.Stdin
	t.Cleanup(func() { os.Stdin = old })
	// More than a pipe holds.
	input := marshal(t, &bootapi.BootstrapParams{InstanceID: "a", Namespace: "moby", ContainerdBinary: strings.Repeat("x", 1<<20)})
	m := &starter{}
	done, err := legacyStart(t.Context(), m, startArgs, stdin(t, input), io.Discard)
	if done || err != nil || m.params != nil {
		t.Fatal(done, err, m.params)
	}
	got, err := io.ReadAll(os.Stdin)
	if err != nil || !bytes.Equal(got, input) {
		t.Errorf("%d of %d bytes come again, %v", len(got), len(input), err)
	}
}

func FuzzBootstraps(f *testing.F) {
	f.Add([]byte("\x0a\x01a\x12\x04moby"), "a", "moby")
	f.Fuzz(func(t *testing.T, input []byte, id, namespace string) {
		if bootstraps(input, invocation{id: id, namespace: namespace}) {
			var params bootapi.BootstrapParams
			if err := proto.Unmarshal(input, &params); err != nil || params.InstanceID != id || params.Namespace != namespace {
				t.Errorf("%q bootstraps %q in %q", input, id, namespace)
			}
		}
	})
}
