// SPDX-License-Identifier: Apache-2.0

// Package check finds out whether this host can run isolated containers, and
// what it lacks. It is `isolatectl check`.
//
// It tries instead of comparing versions: kernels of distributions have features
// early or switched off. What is called here is what the shim calls at run time
// (clones and overlays, by the probes of packages mount and rootfs; the probe of lxcfs,
// the search for a runtime, the id pool), so the answer is the one containers will get.
//
// A finding is one [Line], with a way to mend it whenever something is amiss.
// There are four results: all is well; nothing is amiss and there is something to
// know; containers run and something is missing (say, lxcfs); containers cannot
// run.
//
// Clients (containerd and its CRI runtimes, Docker) are judged by what package host
// finds out about them.
//
// What does not belong here: changing anything on the host. The probes leave
// nothing behind.
package check
