// SPDX-License-Identifier: Apache-2.0

// Package soak lives through many containers with random faults, and counts what is
// left of them.
//
// What a life does and what hits it follow from a seed and the life's number alone
// ([Plan]), so that one of them can be lived again: FROM=i N=1. Faults of the host,
// such as a killed containerd, hit all lives of the batch that they are in. After each
// batch every fault is over, the containers are removed as a client does it, and each
// id is used once more. Then nothing may be there that was not there before
// ([Compare]).
//
// The same seed with containerd's own shim tells what is left because containerd, the
// client or the runtime leave it, whatever the shim does.
package soak
