// SPDX-License-Identifier: Apache-2.0

// Package host knows the daemons of a host from outside, for all of isolatectl:
// which processes they are, what containerd and dockerd are configured to do, and
// who starts containerd again.
//
// They are asked. The program of a process says what it is, and containerd's what
// its configuration comes to; dockerd answers on its socket. Command lines and files
// say what cannot be asked, such as where that socket is, and the rest of a daemon
// that does not run. No program is run, as root, that a container may have put in
// place of a daemon's: a container may call its processes what it likes.
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
