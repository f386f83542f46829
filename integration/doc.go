// SPDX-License-Identifier: Apache-2.0

// Package integration drives the real containerd, runc, crun and lxcfs, and
// the shim under test between them, in disposable namespaces.
//
// It is made of five packages, each of which only knows those before it:
//
//	cache   things that are slow to make, made once
//	apt     Debian packages, without touching the machine's own apt and dpkg
//	peer    the third-party programs the shim has to work with
//	image   container images, made of Debian packages
//	rig     one set of namespaces with a containerd, an lxcfs, and a count of
//	        everything that could be left behind
//
// The tests themselves are in this directory; the command inside is what they
// run in a container where a shell is not enough. What can be proved without a
// real containerd belongs beside the code it proves, not here.
package integration
