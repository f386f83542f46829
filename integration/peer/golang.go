// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/mod/modfile"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// golang is a peer built from a Go module.
type golang struct {
	module  string
	version string
	// staging is the version of the modules that the module's own go.mod replaces
	// by directories, as that of Kubernetes does; "" if it has none.
	staging string
	builds  []build
}

// build is one call of go build.
type build struct {
	packages []string // below the module; "" is the module itself
	tags     string
	ldflags  string
	// seccomp links libseccomp and with it all of libc, statically.
	seccomp bool
	// test builds the tests of the one package, as a program of its name.
	test bool
}

const containerdModule = "github.com/containerd/containerd/v2"

// containerd's own Makefile builds the shim without gRPC, and statically.
func containerd(version string) golang {
	stamp := "-X " + containerdModule + "/version.Version=" + version + " -X " + containerdModule + "/version.Package=" + containerdModule
	return golang{
		module: containerdModule, version: version,
		builds: []build{
			{packages: []string{"cmd/containerd", "cmd/ctr"}, tags: "urfave_cli_no_docs", ldflags: stamp},
			{packages: []string{"cmd/containerd-shim-runc-v2"}, tags: "urfave_cli_no_docs no_grpc", ldflags: stamp},
		},
	}
}

var goRecipes = map[Name]golang{
	Containerd24: containerd("v2.4.2"),
	Containerd22: containerd("v2.2.9"),
	Runc15: {
		module: "github.com/opencontainers/runc", version: "v1.5.2",
		// Without libpathrs, which no Debian release has a library of.
		builds: []build{{packages: []string{""}, tags: "seccomp netgo osusergo urfave_cli_no_docs", seccomp: true}},
	},
	Docker29: {
		module: "github.com/moby/moby/v2", version: "v2.0.0-beta.24",
		builds: []build{{
			packages: []string{"cmd/dockerd", "cmd/docker-proxy"},
			ldflags:  "-X github.com/moby/moby/v2/dockerversion.Version=29.0.0-beta24",
		}},
	},
	CRITools: {
		module: "sigs.k8s.io/cri-tools", version: "v1.36.0",
		builds: []build{{packages: []string{"cmd/crictl"}}, {packages: []string{"cmd/critest"}, test: true}},
	},
	NvidiaHook: {
		module: "github.com/NVIDIA/nvidia-container-toolkit", version: "v1.20.2",
		// It needs a C compiler as what uses libseccomp does.
		builds: []build{{packages: []string{"cmd/nvidia-cdi-hook"}, tags: "netgo osusergo", seccomp: true}},
	},
	CNI: {
		module: "github.com/containernetworking/plugins", version: "v1.9.1",
		builds: []build{{packages: []string{
			"plugins/main/bridge", "plugins/main/loopback", "plugins/ipam/host-local", "plugins/meta/portmap", "plugins/meta/firewall",
		}}},
	},
	Kubelet:      kubernetes("kubelet", "kube-proxy", "kubectl"),
	ControlPlane: kubernetes("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
}

func kubernetes(commands ...string) golang {
	k := golang{module: "k8s.io/kubernetes", version: "v1.36.3", staging: "v0.36.3"}
	stamp := "-X k8s.io/component-base/version.gitVersion=" + k.version + " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
	b := build{ldflags: stamp}
	for _, command := range commands {
		b.packages = append(b.packages, "cmd/"+command)
	}
	k.builds = []build{b}
	return k
}

func init() {
	for name, recipe := range goRecipes {
		cache.Register(cache.Item{
			Name:    string(name),
			Resolve: recipe.resolve,
			Make:    recipe.make,
		})
	}
}

func (g golang) resolve(context.Context) (cache.Inputs, error) {
	return cache.Inputs{
		Version: g.version,
		Parts:   []string{fmt.Sprintf("%+v", g), runtime.Version(), runtime.GOARCH},
	}, nil
}

func (g golang) make(ctx context.Context, w cache.Work) error {
	module := filepath.Join(filepath.Dir(w.Dir), "module")
	if err := os.Mkdir(module, 0o755); err != nil {
		return fmt.Errorf("make module: %w", err)
	}
	command := cache.Command{
		Dir: module,
		Env: []string{"GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "CGO_ENABLED=0"},
		Log: w.Log,
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module peer.invalid\n"), 0o644); err != nil {
		return fmt.Errorf("make module: %w", err)
	}
	if err := g.replaceStaging(ctx, command); err != nil {
		return err
	}
	if err := command.Run(ctx, "go", "get", g.module+"@"+g.version); err != nil {
		return err
	}
	for _, b := range g.builds {
		if err := b.run(ctx, command, g.module, filepath.Join(w.Dir, "bin")+"/"); err != nil {
			return err
		}
	}
	return nil
}

// replaceStaging gives the throw-away module the modules that have no version
// but in the repository of the one to be built.
func (g golang) replaceStaging(ctx context.Context, command cache.Command) error {
	if g.staging == "" {
		return nil
	}
	out, err := command.Output(ctx, "go", "mod", "download", "-json", g.module+"@"+g.version)
	if err != nil {
		return err
	}
	var downloaded struct{ GoMod string }
	if err := json.Unmarshal([]byte(out), &downloaded); err != nil {
		return fmt.Errorf("find go.mod of %q: %w", g.module, err)
	}
	text, err := os.ReadFile(downloaded.GoMod)
	if err != nil {
		return fmt.Errorf("find staging modules: %w", err)
	}
	file, err := modfile.Parse(downloaded.GoMod, text, nil)
	if err != nil {
		return fmt.Errorf("find staging modules: %w", err)
	}
	argv := []string{"go", "mod", "edit"}
	for _, r := range file.Replace {
		if modfile.IsDirectoryPath(r.New.Path) {
			argv = append(argv, "-replace="+r.Old.Path+"="+r.Old.Path+"@"+g.staging)
		}
	}
	return command.Run(ctx, argv...)
}

func (b build) run(ctx context.Context, command cache.Command, module, bin string) error {
	ldflags := "-s -w " + b.ldflags
	if b.seccomp {
		env, err := seccompEnv(ctx, command.Dir)
		if err != nil {
			return err
		}
		command.Env = append(command.Env, env...)
		ldflags += " -linkmode external -extldflags -static"
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return fmt.Errorf("make peer: %w", err)
	}
	// The machine stays usable meanwhile.
	argv := []string{"nice", "go", "build"}
	if b.test {
		argv = []string{"nice", "go", "test", "-c"}
	}
	argv = append(argv, "-trimpath", "-tags", b.tags, "-ldflags", ldflags, "-o", bin)
	for _, name := range b.packages {
		argv = append(argv, filepath.Join(module, name))
	}
	return command.Run(ctx, argv...)
}

var errNoCompiler = errors.New("no C compiler: runc needs one; apt-get install gcc libc6-dev")

// seccompEnv is the environment for building with a libseccomp that is not
// installed. The Go side of it asks pkg-config where it is, and is answered by a
// script.
func seccompEnv(ctx context.Context, dir string) ([]string, error) {
	if err := compiler(ctx); err != nil {
		return nil, err
	}
	library, err := Get(ctx, libseccomp)
	if err != nil {
		return nil, err
	}
	archives, err := filepath.Glob(filepath.Join(library.Dir, "root/usr/lib/*/libseccomp.a"))
	if err != nil || len(archives) != 1 {
		return nil, fmt.Errorf("find libseccomp.a in %q: found %q", library.Dir, archives)
	}
	script := filepath.Join(dir, "pkg-config")
	text := "#!/bin/sh\ncase \"$*\" in\n" +
		"*--cflags*) echo -I" + filepath.Join(library.Dir, "root/usr/include") + " ;;\n" +
		"*--libs*) echo -L" + filepath.Dir(archives[0]) + " -lseccomp ;;\nesac\n"
	if err := testprogram.Write(script, text); err != nil {
		return nil, fmt.Errorf("write pkg-config stand-in: %w", err)
	}
	return []string{"CGO_ENABLED=1", "PKG_CONFIG=" + script}, nil
}

// compiler makes sure that there is a C compiler. It is the one thing that is
// installed on the machine, and only where there is none.
func compiler(ctx context.Context) error {
	if found() {
		return nil
	}
	if os.Geteuid() != 0 {
		return errNoCompiler
	}
	fmt.Fprintln(os.Stderr, "no C compiler found: installing gcc and libc6-dev by apt-get")
	command := cache.Command{Env: []string{"DEBIAN_FRONTEND=noninteractive"}, Log: os.Stderr}
	if err := errors.Join(
		command.Run(ctx, "apt-get", "-q", "update"),
		command.Run(ctx, "apt-get", "-q", "-y", "install", "--no-install-recommends", "gcc", "libc6-dev"),
	); err != nil {
		return fmt.Errorf("install C compiler: %w", err)
	}
	if !found() {
		return errNoCompiler
	}
	return nil
}

func found() bool {
	_, err := exec.LookPath("gcc")
	return err == nil
}
