// SPDX-License-Identifier: Apache-2.0

// Package rig is a disposable machine for integration tests: a set of
// namespaces in which a real containerd, real runtimes and a real lxcfs run as
// they do on a host, and of which nothing is left afterwards.
//
// A test package calls it in TestMain, a command in main:
//
//	func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
//	func main()                 { os.Exit(rig.Enter(demo)) }
//
// The program is then executed three times:
//
//   - outside, where it makes the namespaces, builds and downloads what the
//     tests ask for, since they have no network, and removes what they leave;
//   - as process 1 of the namespaces, where it reaps orphans and kills everything
//     at the end. lxcfs refuses to work unless it can look at process 1, which
//     that of a sandboxed machine does not let it;
//   - inside, where the tests run.
//
// Inside, /run, /etc and /var/lib may be written to without a trace on the machine,
// mounts are shared below / as systemd has them but private to the rig, the
// network is a lone bridge node0 with 10.88.70.1/24, and cgroups are a subtree
// which looks like the root. A hybrid machine's cgroup2 hierarchy is not there,
// since crun after 1.20 refuses such machines.
//
// Everything that a container could leave behind is counted by [Snapshot].
package rig
