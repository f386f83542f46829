// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// lxcfsHost is what lxcfs is judged by.
type lxcfsHost struct {
	Mode config.Choice
	// Err is why it serves nothing; else Root is its mount, Files are the names of what
	// it serves, and Skipped says why others are unusable.
	Err     error
	Root    string
	Files   []string
	Skipped map[string]error
	// Program is where it is installed, "" for nowhere.
	Program string
	// Service is set if systemd runs and knows lxcfs.service.
	Service bool
	// PID is that of the running one, 0 if none is seen; Stopped is set if a signal has
	// stopped it.
	PID     int
	Args    []string
	Stopped bool
	Distro  distro
}

// judge tells what containers get of lxcfs, and how to get all of it.
func (l lxcfsHost) judge() Line {
	line := func(result Result, fix, format string, args ...any) Line {
		return Line{What: "lxcfs", Result: result, Reason: fmt.Sprintf(format, args...), Fix: fix}
	}
	if l.Mode == config.LXCFSOff {
		return line(OK, "", "switched off (lxcfs.mode): /proc shows the host's resources in containers")
	}
	if l.Err != nil {
		result, consequence := Degraded, "containers start and /proc shows the host's resources"
		if l.Mode == config.LXCFSRequire {
			result, consequence = Failed, `containers are refused (lxcfs.mode = "require")`
		}
		cause, advice, _ := strings.Cut(l.Err.Error(), "; ")
		return line(result, cmp.Or(l.mend(), advice, "look into its log"), "%s: %s", consequence, cause)
	}
	serves := l.Root + " serves " + strings.Join(l.Files, " ")
	if len(l.Skipped) > 0 {
		var unusable []string
		for _, name := range slices.Sorted(maps.Keys(l.Skipped)) {
			unusable = append(unusable, fmt.Sprintf("%s (%v)", name, l.Skipped[name]))
		}
		return line(Degraded, "look into its log", "%s; unusable: %s", serves, strings.Join(unusable, ", "))
	}
	if l.PID == 0 { // in another pid namespace
		return line(OK, "", "%s", serves)
	}
	if missing := optionsNotIn(l.Args); len(missing) > 0 {
		return line(Degraded, l.withOptions(), "%s, but it runs without %s", serves, strings.Join(missing, " "))
	}
	return line(OK, "", "%s", serves)
}

// lxcfsCommand is how to run it where no service does.
const lxcfsCommand = "lxcfs " + lxcfs.Options + " /var/lib/lxcfs"

// mend says what to do for the cause, "" if the error does.
func (l lxcfsHost) mend() string {
	restart := "start it again: " + lxcfsCommand
	if l.Service {
		restart = "systemctl restart lxcfs"
	}
	switch {
	case errors.Is(l.Err, lxcfs.ErrDead):
		return fmt.Sprintf("umount -l %s; %s", cmp.Or(l.Root, "/var/lib/lxcfs"), restart)
	case errors.Is(l.Err, lxcfs.ErrHung) && l.Stopped:
		return fmt.Sprintf("kill -CONT %d: a signal has stopped it", l.PID)
	case errors.Is(l.Err, lxcfs.ErrHung):
		return restart + ", or raise lxcfs.timeout_ms if this host is only slow"
	case !errors.Is(l.Err, lxcfs.ErrAbsent):
		return ""
	case l.PID != 0:
		return fmt.Sprintf("%s; process %d of it has no mount here: it is in another mount namespace, or its mount was taken off", restart, l.PID)
	case l.Program == "":
		return l.Distro.install("lxcfs") + ", and then check again: it takes flags as well"
	case l.Service:
		return "systemctl enable --now lxcfs"
	}
	return "start it: " + lxcfsCommand
}

// withOptions says how to give it the options. The unit files of distributions have
// none.
func (l lxcfsHost) withOptions() string {
	if !l.Service {
		return "start it as " + lxcfsCommand
	}
	return "systemctl edit lxcfs, with these lines, and then systemctl restart lxcfs (isolate's deb and rpm bring them):\n" +
		"[Service]\nExecStart=\nExecStart=" + cmp.Or(l.Program, "/usr/bin/lxcfs") + " " + lxcfs.Options + " /var/lib/lxcfs"
}

// optionsNotIn returns the ones of [lxcfs.Options] that matter and that a command
// line does not have. Only -l and --enable-cfs change what a container sees.
func optionsNotIn(args []string) []string {
	var missing []string
	for _, o := range [][]string{{"-l", "--enable-loadavg"}, {"--enable-cfs"}} {
		if !slices.ContainsFunc(args, func(a string) bool { return slices.Contains(o, a) }) {
			missing = append(missing, o[0])
		}
	}
	return missing
}
