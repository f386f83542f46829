// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// kernel checks what every container needs of the kernel. It returns false if this is no
// host, of which nothing else is worth knowing.
func kernel(r *Report) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		r.bad(Degraded, "kernel", "look for the cause in the message", "uname: %v", err)
	} else {
		r.ok("kernel", "Linux %s %s", unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]))
	}
	if err := userns.Host(); err != nil {
		r.bad(Failed, "this host", "run isolate and isolatectl on the host of this container", "%v", err)
		return false
	}
	switch err := userns.Supported().Check(); {
	case err == nil:
		r.ok("user namespaces", "can be made")
	case errors.Is(err, feature.ErrNotSupported):
		r.bad(Failed, "user namespaces", "raise user.max_user_namespaces (sysctl), or boot a kernel with CONFIG_USER_NS", "%v", err)
	default:
		r.bad(Failed, "user namespaces", "run it with all of root's capabilities, outside of containers", "%v", err)
	}
	namespaceLimits(r)
	return true
}

// enough namespaces for a busy node: a pod takes one user namespace, each of its
// containers one mount namespace, and those inside come on top.
const enough = 1024

func namespaceLimits(r *Report) {
	const what = "namespace limits"
	var low []string
	for _, name := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		key := "user/max_" + name + "_namespaces"
		n, err := sysctl(key)
		if err != nil {
			r.bad(Degraded, what, "mount /proc with its sys directory", "%v", err)
			return
		}
		if n < enough {
			low = append(low, fmt.Sprintf("%s = %d", strings.ReplaceAll(key, "/", "."), n))
		}
	}
	if len(low) > 0 {
		r.bad(Degraded, what, fmt.Sprintf("raise them to %d or more with sysctl", enough), "few containers fit: %s", strings.Join(low, ", "))
		return
	}
	// A sysctl of Debian kernels; others do not have it.
	if n, err := sysctl("kernel/unprivileged_userns_clone"); err == nil && n == 0 {
		r.bad(Degraded, what, "sysctl kernel.unprivileged_userns_clone=1", "user namespaces cannot be made inside containers")
		return
	}
	r.ok(what, "at least %d of each kind", enough)
}

func sysctl(key string) (int, error) {
	data, err := os.ReadFile("/proc/sys/" + key)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("sysctl %s: %w", key, err)
	}
	return n, nil
}
