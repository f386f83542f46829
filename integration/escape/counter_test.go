// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// number reads a file that holds a number.
func number(file string) func(*testing.T) int {
	return func(t *testing.T) int { return atoi(t, strings.TrimSpace(read(t, file))) }
}

// tcpPages is how many pages the buffers of all TCP sockets have.
func tcpPages(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/net/sockstat")) {
		if fields := strings.Fields(line); fields[0] == "TCP:" {
			return atoi(t, fields[len(fields)-1])
		}
	}
	t.Fatal("no TCP in /proc/net/sockstat")
	return 0
}

// compiledBytes is how much memory there is for compiled filters.
func compiledBytes(t *testing.T) (n int) {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/vmallocinfo")) {
		if strings.Contains(line, " bpf_prog_pack_alloc") || strings.Contains(line, " bpf_jit_") {
			n += atoi(t, strings.Fields(line)[1])
		}
	}
	return n
}

// trackedConnections is how much memory the kernel uses for connections of all network
// namespaces, in pieces of 128 bytes. One is larger, so that others' may end meanwhile.
func trackedConnections(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(read(t, "/proc/slabinfo")) {
		if fields := strings.Fields(line); fields[0] == "nf_conntrack" {
			return atoi(t, fields[1]) * atoi(t, fields[3]) / 128
		}
	}
	t.Fatal("no nf_conntrack in /proc/slabinfo")
	return 0
}

// neighbourEntries is how many entries the table for IPv4 has, which is one for all
// network namespaces (rtnetlink(7), NDTA_CONFIG in linux/neighbour.h).
func neighbourEntries(t *testing.T) int {
	t.Helper()
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_INET))
	tables, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGHTBL)
	if err != nil {
		t.Fatal(err)
	}
	const header, config, entries = 4, 5, 4 // struct ndtmsg, NDTA_CONFIG, offset in struct ndt_config
	for _, table := range tables {
		attributes, err := nl.ParseRouteAttr(table[header:])
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attributes {
			if table[0] == unix.AF_INET && a.Attr.Type == config {
				return int(binary.NativeEndian.Uint32(a.Value[entries:]))
			}
		}
	}
	t.Fatal("the kernel does not tell how many there are")
	return 0
}
