// SPDX-License-Identifier: Apache-2.0

// Package member proves that a process belongs to a container.
//
// What a runtime reports as a pid is a claim. crun has reported the number that a
// process has in another pid namespace, which is that of a process of the host; a
// number that was read is another process's a moment later; and a cgroup may have
// been shared. So whatever is done to a process of a container (signals, mounts,
// moves between cgroups) is done to a [Process], and the only way to one is
// [Verify]: it holds the process first, then looks at what cannot be pretended,
// then makes sure that it was the same process all the time.
//
// No other container has the ids of one that isolate has mapped, so the user namespace
// is the strongest proof. Containers may share ids, as those of a pod do; cgroup and
// pid namespace tell these apart.
//
// [Process.Confined] asks something else: whether the container's first process is
// what was planned, before its program runs.
package member
