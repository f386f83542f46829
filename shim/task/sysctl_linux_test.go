// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"testing"

	"github.com/isolate-shim/isolate/spec"
)

func TestSysctlFile(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net/ipv4/ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net/ipv4/conf/eth0.1/forwarding": "/proc/sys/net/ipv4/conf/eth0.1/forwarding",
		"net/../kernel/core_pattern":      "/proc/sys/kernel/core_pattern",
		"net/../../../etc/passwd":         "/etc/passwd",
	} {
		if got := sysctlFile(key); got != want {
			t.Errorf("sysctlFile(%q) = %q, want %q", key, got, want)
		}
	}
	// What is not below net is never written.
	for _, key := range []string{"net/../kernel/core_pattern", "net/../../../etc/passwd", "net", "net/..", "net/../net"} {
		if err := writeSysctl(key, "x"); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("writeSysctl(%q): %v", key, err)
		}
	}
}
