// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxScript bounds how much of an entry point script is read, in bytes.
const maxScript = 64 << 10

// defaultPath is searched for a command if the container has no PATH (execvp in
// runc and crun).
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// IsSystemd tells whether the container's first process is systemd, or a script
// that becomes systemd: by what the entry point resolves to in the rootfs, and
// not by its name, since images call it /sbin/init, /lib/systemd/systemd, or
// /usr/local/bin/entrypoint.
func IsSystemd(rootfs string, proc *specs.Process) (bool, error) {
	root, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, fmt.Errorf("open rootfs: %w", err)
	}
	defer root.Close() //nolint:errcheck // O_PATH
	e := entrypoint{root: root, cwd: proc.Cwd, path: defaultPath}
	for _, v := range proc.Env {
		if strings.HasPrefix(v, "PATH=") {
			e.path = v
		}
	}
	return e.systemd(proc.Args, 3), nil
}

type entrypoint struct {
	root      *os.File
	cwd, path string
}

// systemd follows a command line through at most depth scripts.
func (e entrypoint) systemd(args []string, depth int) bool {
	if len(args) == 0 || depth == 0 {
		return false
	}
	f := e.find(args[0])
	if f == nil {
		return false
	}
	defer f.Close() //nolint:errcheck // O_PATH
	resolved, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false
	}
	if path.Base(resolved) == "systemd" {
		return true
	}
	text := script(f)
	if i := slices.Index(args, "-c"); text == "" && i > 0 && i+1 < len(args) {
		text = args[i+1] // sh -c 'exec /sbin/init'
	}
	for _, command := range executed(text, args[1:]) {
		if e.systemd(command, depth-1) {
			return true
		}
	}
	return false
}

// find opens what a command name means in the container, or returns nil.
func (e entrypoint) find(command string) *os.File {
	candidates := []string{path.Join("/", e.cwd, command)}
	switch {
	case path.IsAbs(command):
		candidates = []string{command}
	case !strings.Contains(command, "/"):
		candidates = nil
		for dir := range strings.SplitSeq(strings.TrimPrefix(e.path, "PATH="), ":") {
			candidates = append(candidates, path.Join("/", dir, command))
		}
	}
	for _, c := range candidates {
		if f, err := openFollowing(e.root, c); err == nil {
			return f
		}
	}
	return nil
}

// script returns the beginning of a script, or "" for anything else.
func script(f *os.File) string {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // only read
	magic := make([]byte, 2)
	if _, err := io.ReadFull(file, magic); err != nil || string(magic) != "#!" {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(file, maxScript))
	if err != nil {
		return ""
	}
	return string(text)
}

// executed lists the commands that a shell script may become by exec. args stand
// for "$@". It reads words, not shell: whatever cannot be understood that way is
// a command that will not be found.
func executed(text string, args []string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		i := slices.Index(words, "exec")
		if i < 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		var command []string
		for _, w := range words[i+1:] {
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
			out = append(out, command)
		}
	}
	return out
}
