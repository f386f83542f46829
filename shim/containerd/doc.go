// SPDX-License-Identifier: Apache-2.0

// Package containerd knows the containerd that runs on a host from outside: its
// process, its configuration files, its Kubernetes interface, and who starts it
// again.
//
// A configuration file is the administrator's. It is changed by one line at most
// ([File.WithImport]), the change is checked by parsing the result, and can be
// undone when other lines have changed meanwhile ([Edit.Undo]). What a new
// drop-in means is not computed but asked of the very containerd that will read
// it ([Daemon.Dump], [Others]): versions differ in how they merge files, and
// containerd 1.7 drops all other settings of a plugin that an import mentions.
//
// What does not belong here: deciding what to install.
package containerd
