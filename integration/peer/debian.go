// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/isolate-shim/isolate/integration/apt"
	"github.com/isolate-shim/isolate/integration/cache"
)

// Internal peers: needed to make others.
const (
	patchelf   Name = "patchelf"
	libseccomp Name = "libseccomp"
)

// debian is a peer from Debian packages.
type debian struct {
	suite    apt.Suite
	packages []string
	// programs are the paths, inside the packages, that become the peer's programs.
	programs []string
	// relink gives the programs the loader and libraries that came with them,
	// because the machine's are too old or not there.
	relink bool
}

var debianRecipes = map[Name]debian{
	Containerd17: {
		suite: apt.Trixie, packages: []string{"containerd"},
		programs: []string{"usr/bin/containerd", "usr/bin/ctr", "usr/bin/containerd-shim-runc-v2"},
	},
	Runc11:  {suite: apt.Bookworm, packages: []string{"runc"}, programs: []string{"usr/sbin/runc"}},
	Crun121: {suite: apt.Trixie, packages: []string{"crun"}, programs: []string{"usr/bin/crun"}, relink: true},
	Crun18:  {suite: apt.Bookworm, packages: []string{"crun"}, programs: []string{"usr/bin/crun"}, relink: true},
	Lxcfs7:  {suite: apt.Forky, packages: []string{"lxcfs"}, programs: []string{"usr/bin/lxcfs"}, relink: true},
	Lxcfs6:  {suite: apt.Trixie, packages: []string{"lxcfs"}, programs: []string{"usr/bin/lxcfs"}, relink: true},
	Lxcfs5:  {suite: apt.Bookworm, packages: []string{"lxcfs"}, programs: []string{"usr/bin/lxcfs"}, relink: true},
	Criu:    {suite: apt.Trixie, packages: []string{"criu"}, programs: []string{"usr/sbin/criu"}, relink: true},
	Filesystems: {
		suite: apt.Trixie, packages: []string{"btrfs-progs", "erofs-utils", "xfsprogs"},
		programs: []string{"usr/sbin/mkfs.btrfs", "usr/bin/mkfs.erofs", "usr/sbin/mkfs.xfs"}, relink: true,
	},
	Docker26: {
		suite: apt.Trixie, packages: []string{"docker.io", "docker-cli", "tini"},
		programs: []string{"usr/sbin/dockerd", "usr/sbin/docker-proxy", "usr/bin/docker", "usr/bin/docker-init"},
	},
	AppArmor2:  {suite: apt.Bullseye, packages: []string{"apparmor"}, programs: []string{"usr/sbin/apparmor_parser"}},
	AppArmor3:  {suite: apt.Bookworm, packages: []string{"apparmor"}, programs: []string{"usr/sbin/apparmor_parser"}, relink: true},
	AppArmor4:  {suite: apt.Trixie, packages: []string{"apparmor"}, programs: []string{"usr/sbin/apparmor_parser"}, relink: true},
	Secilc:     {suite: apt.Bookworm, packages: []string{"secilc"}, programs: []string{"usr/bin/secilc"}, relink: true},
	Nftables:   {suite: apt.Bookworm, packages: []string{"nftables"}, programs: []string{"usr/sbin/nft"}, relink: true},
	Etcd:       {suite: apt.Trixie, packages: []string{"etcd-server"}, programs: []string{"usr/bin/etcd"}},
	patchelf:   {suite: apt.Bookworm, packages: []string{"patchelf"}, programs: []string{"usr/bin/patchelf"}},
	libseccomp: {suite: apt.Bookworm, packages: []string{"libseccomp-dev"}},
}

func init() {
	for name, recipe := range debianRecipes {
		cache.Register(cache.Item{
			Name:    string(name),
			Resolve: recipe.resolve,
			Make:    recipe.make,
		})
	}
}

func (d debian) resolve(ctx context.Context) (cache.Inputs, error) {
	closure, err := apt.Resolve(ctx, d.suite, d.packages...)
	if err != nil {
		return cache.Inputs{}, err
	}
	return cache.Inputs{
		Version: closure.Version(d.packages[0]),
		Parts:   append(closure.Strings(), fmt.Sprintf("%+v", d)),
	}, nil
}

func (d debian) make(ctx context.Context, w cache.Work) error {
	debs, err := apt.Download(ctx, d.suite, "", w.Dir+".debs", d.packages...)
	if err != nil {
		return err
	}
	root, bin := filepath.Join(w.Dir, "root"), filepath.Join(w.Dir, "bin")
	if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		return fmt.Errorf("make peer: %w", err)
	}
	if err := apt.Unpack(ctx, root, debs...); err != nil {
		return err
	}
	for _, program := range d.programs {
		name := filepath.Join(bin, filepath.Base(program))
		if !d.relink {
			if err := os.Symlink("../root/"+program, name); err != nil {
				return fmt.Errorf("link program: %w", err)
			}
			continue
		}
		if err := relink(ctx, w, program, name); err != nil {
			return fmt.Errorf("relink %q: %w", program, err)
		}
	}
	return nil
}

// relink makes a copy of a program which uses the loader and the libraries of
// its own root, at the place where that root will be.
//
// DT_RPATH is forced since it holds for the libraries of libraries too;
// DT_RUNPATH does not, and would mix in the machine's.
func relink(ctx context.Context, w cache.Work, program, name string) error {
	tool, err := Get(ctx, patchelf)
	if err != nil {
		return err
	}
	root := filepath.Join(w.Dir, "root")
	loader, err := interpreter(filepath.Join(root, program))
	if err != nil {
		return err
	}
	final := filepath.Join(w.Final, "root")
	var libraries []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "usr/lib/*-linux-gnu*/lxcfs"} {
		directories, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return fmt.Errorf("find libraries: %w", err)
		}
		for _, directory := range directories {
			libraries = append(libraries, final+strings.TrimPrefix(directory, root))
		}
	}
	return cache.Command{Log: w.Log}.Run(ctx, tool.Program("patchelf"),
		"--set-interpreter", final+loader,
		"--force-rpath", "--set-rpath", strings.Join(libraries, ":"),
		"--output", name, filepath.Join(root, program))
}

// interpreter reads the loader's path from a program.
func interpreter(path string) (string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // only read
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		text := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(text, 0); err != nil {
			return "", fmt.Errorf("read interpreter: %w", err)
		}
		return strings.TrimRight(string(text), "\x00"), nil
	}
	return "", errors.New("no interpreter: the program is static")
}
