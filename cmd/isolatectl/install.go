// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/cmd/isolatectl/install"
)

// nodeLabel marks nodes on which the handler is ready, for the RuntimeClass.
const nodeLabel = "isolate-shim.github.io/ready=true"

func installCommand() *cli.Command {
	return &cli.Command{
		Name:  "install",
		Usage: "put isolate on this host and make containerd know it",
		Description: "Copies this program and the shim beside it, gives containerd a drop-in with the runtime handler isolate, for\n" +
			"Kubernetes, and loads the AppArmor profile of containers where AppArmor is on. It may run again: it changes\n" +
			"nothing that is as it should be, and writes down what it changes in " + install.Dir + ", for uninstall.\n" +
			"It restarts containerd only if --restart says how.",
		Flags: append(hostFlags(),
			&cli.StringFlag{Name: "from", Usage: "the directory of the programs to install (default: that of this one)"},
			&cli.StringFlag{Name: "bin-dir", Usage: "the directory to install them in", Value: install.BinDir},
			&cli.BoolFlag{Name: "programs-only", Usage: "leave containerd's configuration alone: Docker and ctr need no handler"},
		),
		Before: noArguments,
		Action: func(ctx context.Context, c *cli.Command) error {
			programs, err := install.Open(ctx, c.String("from"))
			if err != nil {
				return err
			}
			r, err := hostRequest(c)
			if err != nil {
				return err
			}
			r.BinDir, r.Handler = c.String("bin-dir"), !c.Bool("programs-only")
			return install.Install(ctx, programs, r)
		},
	}
}

func uninstallCommand() *cli.Command {
	return &cli.Command{
		Name:  "uninstall",
		Usage: "undo what install did on this host",
		Description: "Removes the node's label, the handler and the programs, in this order, as far as install wrote them down.\n" +
			"Refuses, after the first, while containers of isolate are there: they are named.",
		Flags: append(hostFlags(),
			&cli.BoolFlag{Name: "force", Usage: "go on although containers are there or files have changed"},
		),
		Before: noArguments,
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := hostRequest(c)
			if err != nil {
				return err
			}
			r.Force = c.Bool("force")
			return install.Uninstall(ctx, r)
		},
	}
}

// hostFlags are the flags of both commands.
func hostFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "root", Usage: "the host's root directory, as a pod sees it", Value: "/"},
		&cli.StringFlag{Name: "address", Usage: "the socket of the containerd in question", Value: host.DefaultAddress},
		&cli.StringFlag{Name: "restart", Usage: "how to restart containerd if that is needed: " + restarts(), Value: string(host.Restarts[0])},
		&cli.DurationFlag{Name: "timeout", Usage: "how long to wait for containerd", Value: install.Timeout},
		&cli.StringFlag{Name: "node", Usage: "label this Kubernetes node, by the service account of the pod that this runs in"},
		&cli.StringFlag{Name: "node-label", Usage: "the label, `KEY=VALUE`", Value: nodeLabel},
		&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
	}
}

// restarts lists the values of --restart.
func restarts() string {
	var names []string
	for _, r := range host.Restarts {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// hostRequest reads the flags of both commands, and takes the host's root
// directory for its own. Whatever a pod brings along has been opened by then.
func hostRequest(c *cli.Command) (install.Request, error) {
	r := install.Request{
		Address: c.String("address"), Restart: host.Restart(c.String("restart")), Timeout: c.Duration("timeout"),
		DryRun: c.Bool("dry-run"), Say: sayTo(c.Root().Writer),
	}
	if !slices.Contains(host.Restarts, r.Restart) {
		return r, fmt.Errorf("--restart is %q, and can be %s", r.Restart, restarts())
	}
	var ok bool
	if r.Label.Key, r.Label.Value, ok = strings.Cut(c.String("node-label"), "="); !ok || r.Label.Key == "" {
		return r, fmt.Errorf("--node-label is %q, and must be KEY=VALUE", c.String("node-label"))
	}
	if name := c.String("node"); name != "" {
		node, err := install.InCluster(name)
		if err != nil {
			return r, err
		}
		r.Node = node
	}
	if os.Geteuid() != 0 {
		return r, fmt.Errorf("%s: run it as root", c.Name)
	}
	if root := c.String("root"); root != "/" {
		if err := unix.Chroot(root); err != nil {
			return r, fmt.Errorf("enter the host's root directory %s: %w", root, err)
		}
		if err := unix.Chdir("/"); err != nil {
			return r, fmt.Errorf("enter the host's root directory %s: %w", root, err)
		}
	}
	return r, nil
}

func sayTo(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) {
		_, _ = fmt.Fprintf(w, format+"\n", args...) // nowhere else to say it
	}
}
