// SPDX-License-Identifier: Apache-2.0

// Package options turns what containerd's clients send as runtime options into
// one form.
//
// Depending on who calls, a container arrives with no options, with those of
// runc (containerd.runc.v1.Options: ctr --uidmap, CRI with a user namespace, CRI
// under the name of runc; containerd.linux.runc.CreateOptions: the same from
// clients of containerd 1.7), or with a configuration file or text
// (runtimeoptions.v1.Options: CRI with an options table, ctr
// --runtime-config-path). containerd's runc packages assert the first type
// unchecked, so anything else must never reach them. And which OCI runtime runs
// a container must not depend on the path the request took: containerd lost the
// configured binary in several releases as soon as a container had a user
// namespace (containerd issues 11169, 11480, 11568).
//
// So the options are decoded here ([normalise]), the settings among them are
// layered over the host's configuration, and new options of runc's type are
// built from the result ([build]), with the runtime's absolute path, its root
// and its cgroup driver always set. A type or a key that is not understood is an
// error that names it: running a container with half of what was asked for is
// worse than not running it.
//
// What does not belong here: meaning and defaults of the settings (package
// config), looking for the runtime (package runtime).
package options
