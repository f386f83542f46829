// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// address is a different one for each i.
func address(i int) net.IP {
	return binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i)) //nolint:gosec // below a million
}

func socket(family, kind int) error { return ignore(unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)) }

// device makes a pair of network devices.
func device(i int) error {
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a" + strconv.Itoa(i)}, PeerName: "b" + strconv.Itoa(i)})
}

// neighbour adds an entry to the table of whom IP addresses belong to. It is like one
// of a host that has answered, for permanent ones are not counted.
func neighbour(i int) error {
	if i == 0 {
		if err := device(0); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName("a0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_REACHABLE, IP: address(i), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	})
}

var tracker *netlink.Handle

// connection makes the firewall track a connection.
func connection(i int) error {
	if tracker == nil {
		var err error
		if tracker, err = netlink.NewHandle(unix.NETLINK_NETFILTER); err != nil {
			return err
		}
	}
	here, there := netlink.IPTuple{SrcIP: address(i), DstIP: address(1 << 23), SrcPort: 1, DstPort: 2, Protocol: unix.IPPROTO_UDP}, netlink.IPTuple{
		SrcIP: address(1 << 23), DstIP: address(i), SrcPort: 2, DstPort: 1, Protocol: unix.IPPROTO_UDP,
	}
	return tracker.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET, Forward: here, Reverse: there, TimeOut: 600,
	})
}

// filter gives a socket a filter that the kernel compiles, the longest there may be.
func filter(int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	const load, ret = 0x00, 0x06 // BPF_LD|BPF_IMM, BPF_RET|BPF_K
	code := make([]unix.SockFilter, 4096)
	for i := range code {
		code[i] = unix.SockFilter{Code: load, K: uint32(i)} //nolint:gosec // below 4096
	}
	code[len(code)-1] = unix.SockFilter{Code: ret}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// unread sends to a TCP socket that nobody reads from, until its buffers are full.
func unread(int) error {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(client, name); err != nil {
		return err
	}
	for {
		_, err := unix.SendmsgN(client, make([]byte, 64<<10), nil, nil, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
