// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
)

// Config says how a containerd is to run. The zero value is the newest
// containerd with the newest runc.
type Config struct {
	// Containerd is peer.Containerd24 by default.
	Containerd peer.Name
	// Runc is what containerd and its shims find as runc, peer.Runc15 by
	// default. A crun will do.
	Runc peer.Name
	// Isolate puts the shim under test and isolatectl on the PATH.
	Isolate bool
	// Programs are further programs to be put on the PATH, by name; they replace
	// those above. An empty path takes one away.
	Programs map[string]string
	// Snapshotter is what Import unpacks to and Run uses, overlayfs by default.
	Snapshotter string
	// Root and State are containerd's directories, for tests of the file systems
	// that they are on; by default directories of the rig.
	Root, State string
	// Wrap begins the command line of containerd, which ends it: "setpriv", with
	// options, for example.
	Wrap []string
	// CRI starts the Kubernetes interface, with image.Pause for sandboxes; it has to
	// be imported into the namespace k8s.io before the first.
	CRI bool
	// TOML is more configuration, without a version.
	TOML string
	// Main changes the main configuration file before containerd reads it.
	Main func(text string) string
	// File is where that is, below /etc or /var/lib; by default it is in a directory of the
	// rig.
	File string
	// NoFile leaves containerd to the file that it reads by default,
	// /etc/containerd/config.toml, which there need not be, and to what must be on
	// its command line.
	NoFile bool
	// LogLevel is containerd's, debug by default.
	LogLevel string
	// Env is added to the environment of containerd and its shims.
	Env []string
}

// Node is a containerd.
type Node struct {
	// Root and State are containerd's, on a disk.
	Root, State string
	// Address is containerd's socket.
	Address string
	// Log is the file with the output of containerd and its shims.
	Log string
	// Bin is the first directory of containerd's PATH. Links in it may be
	// changed.
	Bin string
	// File is the main configuration file.
	File string

	config  Config
	daemon  *daemon
	program string // containerd
	ctr     string
	env     []string
}

var nodes atomic.Int32

// Containerd starts a containerd for one test, which shows the end of its log if
// it fails.
func Containerd(t testing.TB, config Config) *Node {
	t.Helper()
	n, err := StartContainerd(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of %s:\n%s", n.Log, logTail(n.Log))
		}
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// StartContainerd starts a containerd of its own, with a root of its own, and
// returns when it answers.
func StartContainerd(ctx context.Context, config Config) (*Node, error) {
	if config.Containerd == "" {
		config.Containerd = peer.Containerd24
	}
	if config.Snapshotter == "" {
		config.Snapshotter = "overlayfs"
	}
	if config.LogLevel == "" {
		config.LogLevel = "debug"
	}
	host, err := peer.Get(ctx, config.Containerd)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(Dir(), "n"+strconv.Itoa(int(nodes.Add(1))))
	n := &Node{
		Root: cmp.Or(config.Root, filepath.Join(dir, "root")), State: cmp.Or(config.State, filepath.Join(dir, "state")),
		Address: filepath.Join(dir, "c.sock"), Log: filepath.Join(dir, "containerd.log"),
		Bin:    filepath.Join(dir, "bin"),
		config: config, program: host.Program("containerd"), ctr: host.Program("ctr"),
		File: cmp.Or(config.File, filepath.Join(dir, "config.toml")),
	}
	n.env = append([]string{"PATH=" + n.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, config.Env...)
	if err := errors.Join(os.Mkdir(dir, 0o711), os.Chmod(dir, 0o711), os.Mkdir(n.Bin, 0o755)); err != nil {
		return nil, fmt.Errorf("make node: %w", err)
	}
	if err := link(ctx, n.Bin, config, host); err != nil {
		return nil, err
	}
	extra := filepath.Join(dir, "extra.toml")
	main, version := n.settings(extra)
	if config.Main != nil {
		main = config.Main(main)
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(n.File), 0o755),
		os.WriteFile(n.File, []byte(main), 0o644),
		os.WriteFile(extra, []byte(version+config.TOML), 0o644),
	); err != nil {
		return nil, fmt.Errorf("write containerd configuration: %w", err)
	}
	if config.NoFile {
		n.File = "/etc/containerd/config.toml"
	}
	watch(filepath.Join(n.State, taskDir), filepath.Join(n.Root, taskDir))
	return n, n.Start(ctx)
}

// link fills the first directory of PATH.
func link(ctx context.Context, bin string, config Config, host peer.Peer) error {
	programs := map[string]string{"containerd-shim-runc-v2": host.Program("containerd-shim-runc-v2")}
	if _, given := config.Programs["runc"]; !given {
		name := config.Runc
		if name == "" {
			name = peer.Runc15
		}
		runtime, err := peer.Get(ctx, name)
		if err != nil {
			return err
		}
		programs["runc"] = runtime.Program(runtime.Programs()[0])
	}
	if config.Isolate {
		built, err := Built(ctx)
		if err != nil {
			return err
		}
		maps.Copy(programs, built)
	}
	maps.Copy(programs, config.Programs)
	for name, target := range programs {
		if target == "" {
			continue
		}
		if err := os.Symlink(target, filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("link program: %w", err)
		}
	}
	return nil
}

// unused plugins cost start-up time, or fail for want of a device, and say so.
var unused = []string{
	"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
	"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.aufs",
	"io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
	"io.containerd.nri.v1.nri",
}

var unusedWithoutCRI = []string{
	"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
	"io.containerd.podsandbox.controller.v1.podsandbox",
}

// settings returns containerd's configuration, which imports another file for
// the caller's part, and the line with the version that both need.
func (n *Node) settings(extra string) (main, version string) {
	version, criTable := "version = 3\n", "io.containerd.cri.v1.runtime"
	if n.config.Containerd == peer.Containerd17 {
		version, criTable = "version = 2\n", "io.containerd.grpc.v1.cri"
	}
	disabled := slices.DeleteFunc(slices.Clone(unused), func(plugin string) bool {
		return plugin == "io.containerd.snapshotter.v1."+n.config.Snapshotter
	})
	if !n.config.CRI {
		disabled = append(disabled, unusedWithoutCRI...)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%sroot = %q\nstate = %q\nimports = [%q]\ndisabled_plugins = [\"%s\"]\n",
		version, n.Root, n.State, extra, strings.Join(disabled, `", "`))
	if Slow() {
		// Of a shim that takes longer to clean up than its 5 s containerd drops what
		// is left.
		text.WriteString("[timeouts]\n\"io.containerd.timeout.shim.cleanup\" = \"60s\"\n\"io.containerd.timeout.shim.load\" = \"60s\"\n\"io.containerd.timeout.shim.shutdown\" = \"30s\"\n")
	}
	fmt.Fprintf(&text, "[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n", n.Address, n.Address+".ttrpc")
	if n.config.CRI {
		if n.config.Containerd == peer.Containerd17 {
			fmt.Fprintf(&text, "[plugins.%q]\nsandbox_image = %q\n", criTable, image.PauseReference)
		} else {
			fmt.Fprintf(&text, "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = %q\n[plugins.%q]\n", image.PauseReference, criTable)
		}
		// Where the machine's root lacks CAP_SYS_RESOURCE, no process may get a
		// score below that of its parent.
		text.WriteString("restrict_oom_score_adj = true\n")
		if n.config.Containerd == peer.Containerd17 {
			// Debian's takes a table of the interface in place of its own, not over it.
			fmt.Fprintf(&text, "[plugins.%q.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n", criTable)
		}
	}
	return text.String(), version
}

// Start starts containerd after Stop or Kill, and returns when it answers.
func (n *Node) Start(ctx context.Context) error {
	var err error
	args := []string{n.program, "--config", n.File, "--log-level", n.config.LogLevel}
	if n.config.NoFile {
		args = []string{n.program, "--root", n.Root, "--state", n.State, "--address", n.Address, "--log-level", n.config.LogLevel}
	}
	n.daemon, err = startDaemon(n.Log, n.env, append(slices.Clone(n.config.Wrap), args...)...)
	if err != nil {
		return err
	}
	err = n.daemon.await(ctx, func() error { return n.Ctr(ctx, "version").Err() })
	if err == nil && n.config.CRI {
		err = n.checkPlugins(ctx)
	}
	if err != nil {
		return errors.Join(err, n.Kill())
	}
	return nil
}

// checkPlugins fails if a plugin has failed: containerd answers all the same, and
// only its Kubernetes interface is missing.
func (n *Node) checkPlugins(ctx context.Context) error {
	plugins := n.Ctr(ctx, "plugins", "ls")
	if err := plugins.Err(); err != nil {
		return err
	}
	for line := range strings.Lines(plugins.Stdout) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "error" {
			return fmt.Errorf("plugin failed: %s\n%s", strings.Join(fields, " "), logTail(n.Log))
		}
	}
	return nil
}

// Stop ends containerd alone, as a service manager would: its shims and
// containers go on.
func (n *Node) Stop() error { return n.daemon.stop(unix.SIGTERM) }

// Kill ends containerd alone, without warning.
func (n *Node) Kill() error { return n.daemon.stop(unix.SIGKILL) }

// Restart stops and starts containerd.
func (n *Node) Restart(ctx context.Context) error {
	if err := n.Stop(); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Supervise starts containerd again whenever it ends, as a service manager does,
// until the function that it returns is called.
func (n *Node) Supervise(ctx context.Context) (stop func() error) {
	end, result := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				result <- nil
				return
			case <-n.daemon.done:
			}
			// Not to be interrupted: a containerd that has just been started answers
			// before all of it has been looked at.
			if err := n.Start(ctx); err != nil {
				result <- fmt.Errorf("start containerd again: %w", err)
				return
			}
		}
	}()
	return func() error {
		close(end)
		return <-result
	}
}

// Pid is containerd's process, for measuring it.
func (n *Node) Pid() int { return n.daemon.command.Process.Pid }
