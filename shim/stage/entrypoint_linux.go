// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// What the look at an entry point may cost, since an image's maker has a free
// hand: a script of the usual kind names one command in one directory of PATH.
const (
	maxScript  = 64 << 10 // bytes that are read of one script
	maxScripts = 4        // one after another, to any depth
	maxLookups = 256      // of paths
	maxWords   = 64       // of one command
)

// defaultPath is searched for a command if the container has no PATH (execvp in
// runc and crun).
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ErrUnclear means that an entry point was not followed to its end.
var ErrUnclear = errors.New("its scripts name more commands than are followed")

// IsSystemd tells whether the container's first process is systemd, or a script
// that becomes systemd: by what the entry point resolves to in the rootfs, and
// not by its name, since images call it /sbin/init, /lib/systemd/systemd, or
// /usr/local/bin/entrypoint. A script is not run but read, see executed.
//
// The answer comes in bounded time and memory whatever the image says; where the
// bounds were reached without finding systemd, the error is [ErrUnclear].
func IsSystemd(rootfs string, proc *specs.Process) (bool, error) {
	root, err := openRoot(rootfs)
	if err != nil {
		return false, err
	}
	defer root.Close()
	e := entrypoint{root: root, cwd: proc.Cwd, path: defaultPath, lookups: maxLookups, scripts: maxScripts}
	for _, v := range proc.Env {
		if strings.HasPrefix(v, "PATH=") {
			e.path = v
		}
	}
	found, err := e.systemd(proc.Args)
	if err != nil {
		return false, fmt.Errorf("is the entry point systemd: %w", err)
	}
	return found, nil
}

func openRoot(rootfs string) (*os.File, error) {
	fd, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open rootfs: %w", &os.PathError{Op: "open", Path: rootfs, Err: err})
	}
	return os.NewFile(uintptr(fd), rootfs), nil
}

type entrypoint struct {
	root             *os.File
	cwd, path        string
	lookups, scripts int // how many more are allowed
}

// systemd follows a command line.
func (e *entrypoint) systemd(args []string) (bool, error) {
	if len(args) == 0 {
		return false, nil
	}
	f, err := e.find(args[0])
	if f == nil || err != nil {
		return false, err
	}
	defer f.Close()
	resolved, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false, err
	}
	if path.Base(resolved) == "systemd" {
		return true, nil
	}
	text, err := e.script(f)
	if err != nil {
		return false, err
	}
	if i := slices.Index(args, "-c"); text == "" && i > 0 && i+1 < len(args) {
		text = args[i+1] // sh -c 'exec /sbin/init'
	}
	// The last one first: a script ends by becoming something else.
	for _, command := range slices.Backward(executed(text, args[1:])) {
		if found, err := e.systemd(command); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// find opens what a command name means in the container, or returns nil.
func (e *entrypoint) find(command string) (*os.File, error) {
	if path.IsAbs(command) {
		return e.open(command)
	}
	if strings.Contains(command, "/") {
		return e.open(path.Join("/", e.cwd, command))
	}
	for dir := range strings.SplitSeq(strings.TrimPrefix(e.path, "PATH="), ":") {
		if f, err := e.open(path.Join("/", dir, command)); f != nil || err != nil {
			return f, err
		}
	}
	return nil, nil //nolint:nilnil // documented
}

func (e *entrypoint) open(unsafePath string) (*os.File, error) {
	if e.lookups--; e.lookups < 0 {
		return nil, ErrUnclear
	}
	return openFollowing(e.root, unsafePath)
}

// script returns the beginning of a script, or "" for anything else.
func (e *entrypoint) script(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", nil
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	defer file.Close()
	magic := make([]byte, 2)
	switch _, err := io.ReadFull(file, magic); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "", nil
	case err != nil:
		return "", err
	case string(magic) != "#!":
		return "", nil
	}
	if e.scripts--; e.scripts < 0 {
		return "", ErrUnclear
	}
	text, err := io.ReadAll(io.LimitReader(file, maxScript))
	return string(text), err
}

// openFollowing looks up a path below dir as a process with this root would, and
// returns nil if there is no such file.
func openFollowing(dir *os.File, unsafePath string) (*os.File, error) {
	f, err := openat.Open(dir, unsafePath, unix.O_PATH, openat.InRoot)
	for _, none := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG} {
		if errors.Is(err, none) {
			return nil, nil //nolint:nilnil // documented
		}
	}
	return f, err
}

// executed lists the commands that a shell script may become by exec, the last
// ones if there are more than can be looked up. args stand for "$@". It reads
// words, not shell: whatever cannot be understood that way is a command that will
// not be found.
func executed(text string, args []string) [][]string {
	args = args[:min(len(args), maxWords)]
	var out [][]string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		i := slices.Index(words, "exec")
		if i < 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		var command []string
		for _, w := range words[i+1:] {
			if len(command) >= maxWords {
				break
			}
			switch w = strings.Trim(w, `"';`); {
			case w == "$@" || w == "${@}" || w == "$*":
				command = append(command, args...)
			case len(command) == 0 && (strings.HasPrefix(w, "-") || strings.Contains(w, "=")):
				// options of exec, assignments
			default:
				command = append(command, w)
			}
		}
		if len(command) > 0 {
			out = append(out[max(0, len(out)-maxLookups):], command)
		}
	}
	return out
}
