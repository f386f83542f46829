// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// DockerConfig says how a dockerd is to run. The zero value is dockerd 26 with
// the newest containerd and runc, which it starts itself.
type DockerConfig struct {
	// Dockerd is peer.Docker26 by default. The client is always that of Docker26.
	Dockerd peer.Name
	// Config is what dockerd and containerd find on their PATH. Of its fields for
	// containerd alone only those of an Apart one count.
	Config
	// Apart runs containerd by itself, as distributions do with a unit of its own.
	Apart bool
	// Settings are those of daemon.json.
	Settings map[string]any
}

// Docker is a dockerd.
type Docker struct {
	// Root is its data root, on a disk.
	Root string
	// Log is the file with the output of dockerd, and of containerd and the shims
	// unless that runs apart.
	Log string
	// Bin is the first directory of dockerd's PATH.
	Bin string
	// Containerd is the one that runs apart, or nil.
	Containerd *Node

	daemon *daemon
	argv   []string
	env    []string
	client []string
	pids   string // of the containerd that dockerd starts
}

// StartDocker starts a dockerd of its own, with a root of its own, and returns
// when it answers. There must not be two at the same time: they have one network.
func StartDocker(ctx context.Context, config DockerConfig) (_ *Docker, retErr error) {
	if config.Dockerd == "" {
		config.Dockerd = peer.Docker26
	}
	if config.Containerd == "" {
		config.Containerd = peer.Containerd24
	}
	debian, err := peer.Get(ctx, peer.Docker26)
	if err != nil {
		return nil, err
	}
	host, err := peer.Get(ctx, config.Dockerd)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(Dir(), "d"+strconv.Itoa(int(nodes.Add(1))))
	d := &Docker{
		Root: filepath.Join(dir, "root"), Log: filepath.Join(dir, "dockerd.log"), Bin: filepath.Join(dir, "bin"),
		pids: filepath.Join(dir, "x/containerd/containerd.pid"),
	}
	if err := errors.Join(os.Mkdir(dir, 0o711), os.Chmod(dir, 0o711), os.Mkdir(d.Bin, 0o755)); err != nil {
		return nil, fmt.Errorf("make dockerd's directory: %w", err)
	}
	if err := d.link(ctx, config, host, debian); err != nil {
		return nil, err
	}
	settings := filepath.Join(dir, "daemon.json")
	text, err := json.Marshal(config.Settings)
	if err != nil {
		return nil, fmt.Errorf("encode daemon.json: %w", err)
	}
	if err := os.WriteFile(settings, text, 0o644); err != nil {
		return nil, fmt.Errorf("write daemon.json: %w", err)
	}
	socket := "unix://" + filepath.Join(dir, "d.sock")
	d.argv = []string{
		host.Program("dockerd"), "--data-root", d.Root, "--exec-root", filepath.Join(dir, "x"), "--pidfile", filepath.Join(dir, "pid"),
		"--host", socket, "--config-file", settings, "--userland-proxy-path", filepath.Join(d.Bin, "docker-proxy"),
		"--init-path", filepath.Join(d.Bin, "docker-init"), "--debug",
	}
	d.env = append([]string{"PATH=" + d.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, config.Env...)
	d.client = []string{debian.Program("docker"), "--config", filepath.Join(dir, "client"), "--host", socket}
	if config.Apart {
		if d.Containerd, err = StartContainerd(ctx, config.Config); err != nil {
			return nil, err
		}
		d.argv = append(d.argv, "--containerd", d.Containerd.Address)
	} else {
		watch(filepath.Join(dir, "x/containerd/daemon", taskDir), filepath.Join(d.Root, "containerd/daemon", taskDir))
	}
	// Containers that dockerd has forgotten would show as mounts.
	watch(filepath.Join(d.Root, "containers"), filepath.Join(d.Root, "rootfs"))
	return d, d.Start(ctx)
}

// link fills the first directory of PATH.
func (d *Docker) link(ctx context.Context, config DockerConfig, host, debian peer.Peer) error {
	containerd, err := peer.Get(ctx, config.Containerd)
	if err != nil {
		return err
	}
	if err := link(ctx, d.Bin, config.Config, containerd); err != nil {
		return err
	}
	for name, target := range map[string]string{
		"containerd": containerd.Program("containerd"), "docker-proxy": host.Program("docker-proxy"), "docker-init": debian.Program("docker-init"),
	} {
		if err := os.Symlink(target, filepath.Join(d.Bin, name)); err != nil {
			return fmt.Errorf("link program: %w", err)
		}
	}
	return linkIptables(d.Bin, filepath.Join(debian.Dir, "root"))
}

// linkIptables makes commands of the iptables that came with dockerd, with its
// own loader and libraries: machines without a firewall have none.
func linkIptables(bin, root string) error {
	loaders, err := filepath.Glob(filepath.Join(root, "usr/lib/*/ld-linux-*.so.*"))
	if err != nil || len(loaders) != 1 {
		return fmt.Errorf("find the loader in %q: found %q", root, loaders)
	}
	libraries := filepath.Dir(loaders[0])
	for _, name := range []string{"iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"} {
		script := fmt.Sprintf("#!/bin/sh\nexport XTABLES_LIBDIR=%s/xtables\nexec %s --library-path %s %s/usr/sbin/xtables-nft-multi %s \"$@\"\n",
			libraries, loaders[0], libraries, root, name)
		if err := testprogram.Write(filepath.Join(bin, name), script); err != nil {
			return fmt.Errorf("write command: %w", err)
		}
	}
	return nil
}

// Start starts dockerd after Stop or Kill, and returns when it answers.
func (d *Docker) Start(ctx context.Context) error {
	var err error
	if d.daemon, err = startDaemon(d.Log, d.env, d.argv...); err != nil {
		return err
	}
	err = d.daemon.await(ctx, func() error { return d.Run(ctx, "version").Err() })
	if err != nil {
		return errors.Join(err, d.Kill())
	}
	return nil
}

// Run runs the docker client.
func (d *Docker) Run(ctx context.Context, args ...string) Result {
	return Exec(ctx, slices.Concat(d.client, args)...)
}

// Client is the command line of the docker client for this dockerd.
func (d *Docker) Client() []string { return slices.Clone(d.client) }

// Load loads an image and returns its reference.
func (d *Docker) Load(ctx context.Context, name image.Name) (reference string, err error) {
	i, err := image.Get(ctx, name)
	if err != nil {
		return "", err
	}
	return i.Reference, d.Run(ctx, "load", "--input", i.Path).Err()
}

// Stop ends dockerd alone, as a service manager would.
func (d *Docker) Stop() error { return d.daemon.stop(unix.SIGTERM) }

// Kill ends dockerd alone, without warning.
func (d *Docker) Kill() error { return d.daemon.stop(unix.SIGKILL) }

// Close removes all containers, ends dockerd and its containerd, and unmounts what
// dockerd keeps mounted for itself.
func (d *Docker) Close() error {
	ctx := context.Background()
	var errs []error
	if all := d.Run(ctx, "ps", "--all", "--quiet", "--no-trunc"); all.Err() == nil && strings.TrimSpace(all.Stdout) != "" {
		errs = append(errs, d.Run(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(all.Stdout)...)...).Err())
	}
	errs = append(errs, d.Stop(), d.stopManaged())
	if d.Containerd != nil {
		errs = append(errs, d.Containerd.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close dockerd: %w\n%s", err, logTail(d.Log))
	}
	return nil
}

// stopManaged ends the containerd that dockerd has started and may have left.
func (d *Docker) stopManaged() error {
	text, err := os.ReadFile(d.pids)
	if err != nil {
		return nil //nolint:nilerr // it has ended, or there was none
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("containerd of dockerd: %w", err)
	}
	ended := Within(patience, func() bool {
		err = unix.Kill(pid, unix.SIGTERM)
		return err != nil
	})
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if !ended {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	return errors.Join(errors.New("containerd of dockerd is still there"), err)
}

// DockerFor starts a dockerd for one test, which shows the end of its log if it
// fails.
func DockerFor(t testing.TB, config DockerConfig) *Docker {
	t.Helper()
	// The test's context ends before its clean-up.
	d, err := StartDocker(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
