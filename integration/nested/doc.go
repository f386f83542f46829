// SPDX-License-Identifier: Apache-2.0

// Package nested tests that system software runs inside isolated containers as
// it does on a machine: Docker with BuildKit, containerd, podman, buildah, systemd,
// sshd, kubelet, kube-proxy, and with ISOLATE_TEST_LONG=1 a whole Kubernetes.
//
// It is apart from package integration because it takes large images and some
// minutes. Each test runs the real programs of Debian inside what an ordinary
// "ctr run" makes, and looks at what they did, not at how they were set up. What
// it leaves behind fails it.
package nested
