// SPDX-License-Identifier: Apache-2.0

package sysinfo

import "testing"

func TestGroupOf(t *testing.T) {
	t.Parallel()
	const v1 = "5:memory:/a/b\n4:pids:/a/c\n1:name=systemd:/init.scope\n0::/\n"
	for _, c := range []struct {
		memberships, controller string
		unified                 bool
		want                    group // none if there is an error
	}{
		{"0::/a/init\n", "memory", true, group{"/sys/fs/cgroup", "/sys/fs/cgroup/a/init", true}},
		{"0::/a/init.scope\n", "memory", true, group{"/sys/fs/cgroup", "/sys/fs/cgroup/a", true}},
		{"0::/init.scope\n", "memory", true, group{"/sys/fs/cgroup", "/sys/fs/cgroup", true}},
		{"0::/\n", "memory", true, group{"/sys/fs/cgroup", "/sys/fs/cgroup", true}},
		{v1, "memory", false, group{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b", false}},
		{v1, "pids", false, group{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/a/c", false}},
		{"0::/../x\n", "memory", true, group{}},
	} {
		if got, err := groupOf(c.memberships, c.controller, c.unified); got != c.want || (err != nil) != (c.want == group{}) {
			t.Errorf("%q, %s: %+v, %v", c.memberships, c.controller, got, err)
		}
	}
}
