// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
)

// Restart says how containerd comes to read its configuration. Containers go on
// meanwhile.
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
	before, err := started(d.PID)
	if err != nil {
		return fmt.Errorf("restart containerd: %w", err)
	}
	switch how {
	case RestartSystemd:
		if err := restartUnit(ctx, d.PID); err != nil {
			return fmt.Errorf("restart containerd, process %d, by systemd: %w", d.PID, err)
		}
	case RestartSignal:
		if err := unix.Kill(d.PID, unix.SIGTERM); err != nil {
			return fmt.Errorf("end containerd, process %d: %w", d.PID, err)
		}
	case RestartNever:
		fallthrough
	default:
		return fmt.Errorf("restart containerd by %q: %w", how, errors.ErrUnsupported)
	}
	for {
		now, err := started(d.PID)
		gone := err != nil || now != before
		if gone && answers(ctx, d.Address) {
			return nil
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

// started is what tells a process from a later one with its pid: the time it was
// started at. A zombie counts as gone.
func started(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// Field 22 is the start time; the name before may hold spaces.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("read /proc/%d/stat: too short", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", unix.ESRCH
	}
	return fields[19], nil
}

func answers(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", address)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
