// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/shim/version"
)

// shimName is the program that containerd looks for.
const shimName = "containerd-shim-isolate-v1"

// findDaemons returns the running containerds, Docker's own among them, or the
// defaults of one if none runs.
func findDaemons(ctx context.Context, r *Report) []daemon {
	var found []daemon
	for _, pid := range pids("/proc", "containerd") {
		d, err := inspectDaemon(ctx, "/proc", pid)
		if err != nil {
			continue // it has ended, or is another program of that name
		}
		found = append(found, d)
		d.check(ctx, r)
	}
	if len(found) == 0 {
		d := daemon{settings: defaults(), Path: os.Getenv("PATH")}
		r.bad(Degraded, "containerd", "start containerd 2.0 or later, or 1.7, and check again", "it is not running, or not in this pid namespace: its defaults are assumed")
		d.checkShim(ctx, r)
		return []daemon{d}
	}
	return found
}

func inspectDaemon(ctx context.Context, proc, pid string) (daemon, error) {
	dir := filepath.Join(proc, pid)
	d := daemon{}
	var err error
	if d.PID, err = strconv.Atoi(pid); err != nil {
		return d, err
	}
	// The link stays good for executing when the file has been replaced.
	link := filepath.Join(dir, "exe")
	if d.Exe, err = os.Readlink(link); err != nil {
		return d, err
	}
	printed, err := output(ctx, link, "--version")
	if err != nil {
		return d, err
	}
	line, _, _ := strings.Cut(string(printed), "\n")
	if !strings.HasPrefix(line, "containerd ") {
		return d, fmt.Errorf("%q is not containerd", d.Exe)
	}
	d.Version = line
	args, err := nulls(filepath.Join(dir, "cmdline"))
	if err != nil {
		return d, err
	}
	env, err := nulls(filepath.Join(dir, "environ"))
	if err != nil {
		return d, err
	}
	for _, e := range env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			d.Path = p
		}
	}
	if label, err := os.ReadFile(filepath.Join(dir, "attr/current")); err == nil {
		d.Label = strings.Trim(string(label), "\x00\n")
	}
	d.settings = defaults().withArgs(args)
	// A containerd that cannot print its configuration is taken to run on its
	// command line and defaults.
	dumpArgs := []string{"config", "dump"}
	if _, err := os.Stat(d.Config); err == nil {
		dumpArgs = append([]string{"--config", d.Config}, dumpArgs...)
	}
	if dumped, err := output(ctx, link, dumpArgs...); err == nil {
		if s, err := d.withDump(dumped); err == nil {
			d.settings = s.withArgs(args) // which wins, as in containerd
		}
	}
	return d, nil
}

// check reports on one running containerd.
func (d daemon) check(ctx context.Context, r *Report) {
	what := fmt.Sprintf("containerd, process %d", d.PID)
	v, major, minor, ok := parseVersion(d.Version)
	switch {
	case !ok:
		r.bad(Degraded, what, "use containerd 2.0 or later, or 1.7", "its version is not understood: %s", d.Version)
	case major < 1 || major == 1 && minor < 7:
		r.bad(Failed, what, "use containerd 2.0 or later, or 1.7", "version %s cannot start this shim", v)
	default:
		if err := answers(ctx, d.Address); err != nil {
			r.bad(Failed, what, "look into its log, and restart it", "version %s: %v", v, err)
		} else {
			r.ok(what, "version %s, %s, root %s", v, d.Address, d.Root)
		}
	}
	if strings.HasSuffix(d.Label, "(enforce)") {
		r.bad(Degraded, what, "run containerd unconfined: not from a strict snap", "confined by AppArmor as %s, which may deny mounts and file locks to the shim", d.Label)
	}
	if len(d.Tables) > 0 {
		r.bad(Degraded, what, "remove the options table and put its settings into /etc/isolate/config.toml",
			"CRI runtime %s has an options table: containerd then fails to start pods with hostUsers: false", strings.Join(d.Tables, ", "))
	}
	d.checkShim(ctx, r)
}

// checkShim reports whether containerd finds the shim: on its PATH, else beside
// its own program.
func (d daemon) checkShim(ctx context.Context, r *Report) {
	const what = "shim"
	const fix = "install " + shimName + " into a directory of containerd's PATH, such as /usr/local/bin, or start containerd with that directory in PATH"
	dirs := filepath.SplitList(d.Path)
	if d.Exe != "" {
		dirs = append(dirs, filepath.Dir(d.Exe))
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, shimName)
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		printed, err := output(ctx, file, "-v")
		said := strings.TrimSpace(string(printed))
		switch {
		case err != nil:
			r.bad(Failed, what, "install it again", "%s: %v", file, err)
		case said != version.String():
			r.bad(Degraded, what, "install shim and isolatectl of one version", "%s is %s, this is %s", file, said, version.String())
		default:
			r.ok(what, "%s is %s", file, said)
		}
		return
	}
	r.bad(Failed, what, fix, "%s is not in %s", shimName, strings.Join(dirs, ":"))
}

// answers tells whether somebody accepts connections on a socket.
func answers(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		return err
	}
	return conn.Close()
}

// output runs a program of the host that is known to end.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	return cmd.Output()
}

// nulls reads a file of strings that end with a NUL byte.
func nulls(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []string
	for part := range bytes.SplitSeq(bytes.TrimRight(data, "\x00"), []byte{0}) {
		out = append(out, string(part))
	}
	return out, nil
}
