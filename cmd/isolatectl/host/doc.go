// SPDX-License-Identifier: Apache-2.0

// Package host knows the daemons of a host from outside, for all of isolatectl:
// which processes they are, what containerd and dockerd are configured to do, and
// who starts containerd again.
//
// Daemons are asked. The program of a process prints its version, and containerd's its
// configuration; containerd and dockerd answer on their sockets. Command lines and files
// say what cannot be asked: where the socket is, and everything about a daemon that does
// not run. A program that a container may have put in place of a daemon's is not run: a
// container can give its processes any name.
//
// A configuration file is the administrator's. It is changed by one line at most
// ([File.WithImport]), the change is checked by parsing the result, and can be
// undone when other lines have changed meanwhile ([Edit.Undo]). What a new
// drop-in means is not computed but asked of the very containerd that will read
// it ([Containerd.Dump], [Config.SameBut]): versions differ in how they merge files, and
// containerd 1.7 drops all other settings of a plugin that an import mentions.
//
// What does not belong here: judging what is found, and deciding what to install.
package host
