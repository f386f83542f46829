// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDenied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ label, want string }{
		{"snap.microk8s.daemon-containerd (enforce)\n", "AppArmor profile snap.microk8s.daemon-containerd, "},
		{"a//&b (mixed)\n\x00", "AppArmor profile a//&b, "},
		{"unconfined\n", "a security module denies"},
		{"runc (unconfined)\n", "a security module denies"},
		{"system_u:system_r:container_runtime_t:s0\x00", "a security module denies"},
		{"", "a security module denies"},
	} {
		err := denied("/run/isolate/.ids/lock", tt.label, unix.EACCES)
		if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/run/isolate/.ids/lock") {
			t.Errorf("%q: %v", tt.label, err)
		}
	}
}
