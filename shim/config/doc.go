// SPDX-License-Identifier: Apache-2.0

// Package config reads the settings from /etc/isolate/config.toml, its drop-ins, a
// caller's runtime options and a container's annotations, and returns them as one
// checked value.
//
// There are five layers. A later layer wins, key by key:
//
//  1. the built-in defaults ([Default]);
//  2. /etc/isolate/config.toml, if it exists;
//  3. /etc/isolate/config.d/*.toml in the order of their names;
//  4. the configuration that a caller names or sends along with a container
//     (runtimeoptions ConfigPath or ConfigBody; [Config.Overlay]). It is layered
//     over the host's files and does not replace them, so that a drop-in which
//     names, say, the id pool holds for every caller;
//  5. the annotations of the container that annotations.allow names
//     ([Config.WithAnnotations]).
//
// A list replaces the list of the layer below. Environment variables are not a
// layer: an image can set those.
//
// Parsing is strict, because a setting that is silently ignored is worse than a
// container that does not start: an unknown key, a wrong type or a value out of
// range is an error that names file, line and key.
//
// Every key has one entry in the table of keys.go. The entry carries the text
// that `isolatectl config` prints; tests hold the table and the struct together.
//
// What does not belong here: looking at the host (which runtime is installed,
// where lxcfs is mounted, which ids are free). An empty value means "find out", and
// the package that needs the answer finds it out.
package config
