// SPDX-License-Identifier: Apache-2.0

// Package docker drives real dockerds with the real docker client, which run
// containers with the shim as people do: by its name, by an alias or as the
// default runtime.
//
// dockerd differs from other clients in that it mounts a container's root file
// system itself, and looks at it while the container runs. Everything is tried
// with two dockerds; what depends on who stores images, on containerd or on the
// OCI runtime is tried with each of these.
package docker
