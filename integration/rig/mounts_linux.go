// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// writable are directories of the machine that may be written to in the rig. It
// keeps what is written.
var writable = []string{"/etc", "/var/lib"}

func overlay(dir, work string) string {
	return fmt.Sprintf("lowerdir=%[1]s,upperdir=%[2]s%[1]s/upper,workdir=%[2]s%[1]s/work", dir, work)
}

// prepareMounts gives the rig a /proc of its own process namespace, an empty
// /run, and directories that it may write to.
func prepareMounts(work string) error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		// Cut off from the machine first, then shared within, as under systemd:
		// that is where mounts show up that somebody forgot to make private.
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %q: %w", m.kind, m.target, err)
		}
	}
	for _, dir := range writable {
		if err := unix.Mount("overlay", dir, "overlay", 0, overlay(dir, work)); err != nil {
			return fmt.Errorf("mount overlay on %q: %w", dir, err)
		}
	}
	return nil
}

// prepareNetwork makes a network that reaches nothing but has what a node has:
// lo, an address, a default route, forwarding.
func prepareNetwork() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "node0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge node0: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 88, 70, 1), Mask: net.CIDRMask(24, 32)}}
	err = errors.Join(
		netlink.LinkSetUp(lo),
		netlink.AddrAdd(bridge, address),
		netlink.LinkSetUp(bridge),
	)
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	route := &netlink.Route{
		LinkIndex: bridge.Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	return nil
}

// settle finishes the rig from within its cgroup namespace.
func settle() error {
	if err := mountCgroups(); err != nil {
		return err
	}
	// Once entered, the tests' own children are not to enter again.
	return errors.Join(os.Unsetenv(stageEnv), os.Chmod(filepath.Join(Dir(), "tmp"), 0o1777))
}
