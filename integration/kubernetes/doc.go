// SPDX-License-Identifier: Apache-2.0

// Package kubernetes runs a real Kubernetes on the real containerd of a rig: etcd,
// API server, controller manager, scheduler, kubelet and CNI. isolate comes onto
// the node as it does in a cluster, by what is in deploy/, and pods choose it by
// their runtimeClassName.
//
// The tests share one cluster. There can be only one kubelet on a machine at a
// time: for the length of its start it sets sysctls, which are put back.
package kubernetes
