// SPDX-License-Identifier: Apache-2.0

package idmap

import "testing"

// TestWithHost: the container's own ids stay as they are, and each of the host's gets one
// that no container can have.
func TestWithHost(t *testing.T) {
	t.Parallel()
	own := Contiguous(0x70000000, 65536)
	m, ok := own.WithHost()
	if !ok || m.Valid() != nil {
		t.Fatalf("%v, %t", m, ok)
	}
	for host, disk := range map[HostID]ContainerID{0x70000000: 0, 0x7000ffff: 65535, 0: 0xFFFE0000, 65535: 0xFFFEFFFF} {
		if got, ok := m.UIDToContainer(host); !ok || got != disk {
			t.Errorf("host id %d is %d on disk, %t", host, got, ok)
		}
	}
	for _, host := range []HostID{65536, 0x6fffffff, 0x70010000} {
		if got, ok := m.UIDToContainer(host); ok {
			t.Errorf("host id %d is %d on disk", host, got)
		}
	}
	if !own.Equal(Contiguous(0x70000000, 65536)) {
		t.Error("the container's own mapping has changed")
	}
}

func TestWithoutHost(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]Mapping{
		"none":              {},
		"of the host's ids": Contiguous(1000, 65536),
		"several ranges":    {UIDs: []Range{{0, 70000, 1}, {1, 80000, 1}}, GIDs: []Range{{0, 70000, 1}, {1, 80000, 1}}},
		"users and groups":  {UIDs: []Range{{0, 70000, 1}}, GIDs: []Range{{0, 80000, 1}}},
		"without a root":    {UIDs: []Range{{1, 70000, 1}}, GIDs: []Range{{1, 70000, 1}}},
	} {
		if got, ok := m.WithHost(); ok || !got.Equal(m) {
			t.Errorf("%s: %v, %t", name, got, ok)
		}
	}
}
