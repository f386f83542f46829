// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
)

// Process is a daemon of this host.
type Process struct {
	PID    int
	Parent int
	Exe    string // where its program is
	Args   []string
	Path   string // its PATH
	// Rootless is set if it runs in a user namespace other than ours, or as
	// somebody other than root.
	Rootless bool
	// Started is the start time, zero if it is not known.
	Started time.Time
	// Stopped is set if a signal has stopped it (SIGSTOP).
	Stopped bool

	proc string // of proc_pid(5)
}

// Find returns the host's processes with one of the command names
// (/proc/<pid>/comm), by a proc file system at proc. It leaves out processes that end
// meanwhile, and those of other pid namespaces: a container's daemons are not the
// host's clients.
func Find(proc string, comms ...string) []Process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(proc, e.Name(), "comm"))
		if err != nil || !slices.Contains(comms, strings.TrimSpace(string(name))) {
			continue
		}
		p := Process{PID: pid, proc: filepath.Join(proc, e.Name())}
		if p.shares(proc, "pid") && p.read(proc) == nil {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found
}

// shares tells whether the process is in our own namespace of that kind.
func (p Process) shares(proc, kind string) bool {
	ours, _ := os.Readlink(filepath.Join(proc, "self/ns", kind)) // "" if there are none
	theirs, err := os.Readlink(filepath.Join(p.proc, "ns", kind))
	return ours == theirs && (err == nil || ours == "")
}

// Label returns the security label of the process, "" if it has none.
func (p Process) Label() string {
	label, err := os.ReadFile(filepath.Join(p.proc, "attr/current"))
	if err != nil {
		return ""
	}
	return strings.Trim(string(label), "\x00\n")
}

func (p *Process) read(proc string) error {
	var err error
	if p.Exe, err = os.Readlink(filepath.Join(p.proc, "exe")); err != nil {
		return err
	}
	if p.Args, err = nulls(filepath.Join(p.proc, "cmdline")); err != nil {
		return err
	}
	env, err := nulls(filepath.Join(p.proc, "environ"))
	if err != nil {
		return err
	}
	for _, e := range env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			p.Path = path
		}
	}
	info, err := os.Stat(p.proc)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	p.Rootless = !p.shares(proc, "user") || ok && owner.Uid != 0
	content, err := os.ReadFile(filepath.Join(p.proc, "stat"))
	if err != nil {
		return nil //nolint:nilerr // without a parent and a time
	}
	stat, err := linuxproc.ParseStat(content)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	p.Parent, p.Stopped = stat.Parent, stat.State == 'T'
	if boot, err := os.ReadFile(filepath.Join(proc, "stat")); err == nil {
		p.Started = startTime(stat.Start, string(boot))
	}
	return nil
}

// startTime converts a start time in ticks since the boot. boot is the content of
// /proc/stat, which has the time of that; zero if it has not.
func startTime(ticks uint64, boot string) time.Time {
	_, after, _ := strings.Cut(boot, "\nbtime ")
	text, _, _ := strings.Cut(after, "\n")
	sec, err := strconv.ParseInt(text, 10, 48)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(sec, 0).Add(time.Duration(ticks) * linuxproc.Tick) //nolint:gosec // ten million years
}

// Older tells whether the process is older than a file, by more than the
// rounding of both.
func (p Process) Older(file string) bool {
	info, err := os.Stat(file)
	return err == nil && !p.Started.IsZero() && info.ModTime().After(p.Started.Add(3*time.Second))
}

// errForeign says that a program is not run because a container may have put it
// there.
var errForeign = errors.New("its program is not one of this host")

// Run runs the program of the process, under the name it was started with: some
// are several programs in one. A program that a container could have put there
// is not run (errForeign): it must be in the host's mount namespace, or the same
// file there. The link in /proc stays good when the file was replaced.
func (p Process) Run(ctx context.Context, args ...string) ([]byte, error) {
	link := filepath.Join(p.proc, "exe")
	if p.Rootless || !p.onHost(link) {
		return nil, errForeign
	}
	name := link
	if len(p.Args) > 0 {
		name = p.Args[0]
	}
	return Output(ctx, link, name, args...)
}

// onHost tells whether a process's program is one of the host, which is where
// process 1 is: this program may be in a pod that only shares the host's processes.
func (p Process) onHost(link string) bool {
	proc := filepath.Dir(p.proc)
	host, root := filepath.Join(proc, "1/ns/mnt"), filepath.Join(proc, "1/root")
	if _, err := os.Readlink(host); err != nil { // a sandbox; then here is where the host is
		host, root = filepath.Join(proc, "self/ns/mnt"), "/"
	}
	ours, _ := os.Readlink(host) // "" if there are none
	theirs, err := os.Readlink(filepath.Join(p.proc, "ns/mnt"))
	if ours == theirs && (err == nil || ours == "") {
		return true
	}
	// What /proc/<pid>/exe says has no symbolic links.
	there, err1 := os.Stat(link)
	here, err2 := os.Stat(filepath.Join(root, p.Exe))
	return err1 == nil && err2 == nil && os.SameFile(there, here)
}

// Output runs a program of the host that is known to end, under a name.
func Output(ctx context.Context, file, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Args[0] = name
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", file, err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
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
