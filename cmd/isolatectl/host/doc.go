// SPDX-License-Identifier: Apache-2.0

// Package host knows the daemons of a host from outside: which processes they are,
// and of containerd its configuration files, its Kubernetes interface and who starts
// it again.
//
// A daemon's own program is asked what it is, as root, without ever running what a
// container has put in place of one: a container may call its processes what it
// likes.
//
// A configuration file is the administrator's. It is changed by one line at most
// ([File.WithImport]), the change is checked by parsing the result, and can be
// undone when other lines have changed meanwhile ([Edit.Undo]). What a new
// drop-in means is not computed but asked of the very containerd that will read
// it ([Containerd.Dump], [Others]): versions differ in how they merge files, and
// containerd 1.7 drops all other settings of a plugin that an import mentions.
//
// What does not belong here: judging what is found, and deciding what to install.
package host
