// SPDX-License-Identifier: Apache-2.0

// Package cri tests pods: the Kubernetes interface (CRI) of a real containerd,
// driven by crictl and critest, with CNI's plugins for the network and runc and
// crun below the shim.
//
// It is apart from package integration because it needs these programs and, for
// critest, a registry: a small one on the loopback of the rig serves images made
// of Debian's packages under the names that critest has built in.
//
// TestCRITest runs the conformance suite under crun. With CRITEST=all in the
// environment it does so under runc as well, and before that with containerd's
// own shim, to compare with what testdata/passes lists. That list is written by
//
//	CRITEST=all go test -run TestCRITest/runc.v2 ./integration/cri -args -update
//
// What the kubelet makes of all this is not tested here.
package cri
