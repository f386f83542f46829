// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// Restart says how containerd is made to read its configuration. Containers keep
// running.
type Restart string

const (
	// RestartNever leaves it to the administrator.
	RestartNever Restart = "never"
	// RestartSystemd asks systemd to restart the service that containerd is in.
	RestartSystemd Restart = "systemd"
	// RestartSignal ends containerd, for a supervisor to start it again.
	RestartSignal Restart = "signal"
)

// Restarts lists the values.
var Restarts = []Restart{RestartNever, RestartSystemd, RestartSignal}

// Restart restarts containerd and returns when the new one accepts connections.
func (d Containerd) Restart(ctx context.Context, how Restart) error {
	old, err := proc.Open(d.PID)
	if err != nil {
		return fmt.Errorf("restart containerd: %w", err)
	}
	defer old.Close()
	switch how {
	case RestartSystemd:
		if err := restartUnit(ctx, d.PID); err != nil {
			return fmt.Errorf("restart containerd, process %d, by systemd: %w", d.PID, err)
		}
	case RestartSignal:
		if err := old.Signal(unix.SIGTERM); err != nil {
			return fmt.Errorf("end containerd: %w", err)
		}
	case RestartNever:
		fallthrough
	default:
		return fmt.Errorf("restart containerd by %q: %w", how, errors.ErrUnsupported)
	}
	for {
		if gone, err := old.Ended(0); err != nil || gone && Answers(ctx, d.Address) == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restart containerd by %s: nothing answers on %s: %w; look into its log", how, d.Address, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// restartUnit makes systemd restart the service of a process.
func restartUnit(ctx context.Context, pid int) error {
	// By systemd's own socket, which root may use, in whatever root directory this
	// process is. Not every host has a message bus.
	conn, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	unit, err := conn.GetUnitNameByPID(ctx, uint32(pid)) //nolint:gosec // a pid
	if err != nil {
		return fmt.Errorf("find its unit: %w", err)
	}
	if !strings.HasSuffix(unit, ".service") {
		return fmt.Errorf("it is in %s, which is no service: restart it as it was started", unit)
	}
	done := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("restart %s: systemd says %q: journalctl -u %s", unit, result, unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", unit, ctx.Err())
	}
}

// Answers tells whether somebody accepts connections on a socket: nil if so.
func Answers(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		return err
	}
	return conn.Close()
}
