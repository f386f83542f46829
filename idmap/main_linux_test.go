// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// rigEnv marks the test process that runs in disposable namespaces.
	rigEnv = "ISOLATE_TEST_RIG"
	// helperEnv names the function a child of a test runs instead of tests.
	helperEnv = "ISOLATE_TEST_HELPER"
)

// helpers are what tests run in processes of their own, by name.
var helpers = map[string]func(args []string) error{
	"workload": workload,
	"inspect":  inspect,
	"remount":  remount,
	"reaper":   reaper,
	"forever":  forever,
	"sit":      sit,
	"contain":  contain,
	"receive":  receive,
	"nested":   nested,
}

// TestMain runs the tests of root in mount and pid namespaces of their own, so
// that nothing they mount or start is left behind, however they end.
func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Fuzzing workers talk over inherited descriptors, and mount nothing.
	fuzzing := strings.Contains(strings.Join(os.Args, " "), "-test.fuzz")
	if os.Getenv(rigEnv) != "" {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount proc:", err)
			os.Exit(1)
		}
	}
	if os.Geteuid() != 0 || os.Getenv(rigEnv) != "" || fuzzing {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), rigEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS, // makes the mounts private, too
		Pdeathsig:    unix.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in namespaces:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// requireRoot declares that a test needs root, and with it the disposable
// namespaces of TestMain.
func requireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root for mounts and user namespaces")
	}
}

// requireFeature skips on a kernel without a feature, but fails if the kernel is
// one that should have it: a skip must not hide a bug.
func requireFeature(tb testing.TB, p *Probe) {
	tb.Helper()
	err := p.Check()
	switch {
	case err == nil:
	case errors.Is(err, ErrNotSupported) && kernelOlderThan(tb, p.Version):
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
}

func kernelOlderThan(tb testing.TB, version string) bool {
	tb.Helper()
	var haveMajor, haveMinor, wantMajor, wantMinor int
	if _, err := fmt.Sscanf(kernelRelease(), "%d.%d", &haveMajor, &haveMinor); err != nil {
		tb.Fatal(err)
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &wantMajor, &wantMinor); err != nil {
		tb.Fatal(err)
	}
	return haveMajor < wantMajor || haveMajor == wantMajor && haveMinor < wantMinor
}

// workDir returns a directory on the machine's disk that a mapped root can
// reach, which t.TempDir is not.
func workDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func userns(tb testing.TB, m Mapping) *os.File {
	tb.Helper()
	ns, err := NewUserns(m)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { shut(tb, ns) })
	return ns
}

func shut(tb testing.TB, c io.Closer) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Error(err)
	}
}

// attach attaches m at path and closes it, and unmounts in the end.
func attach(tb testing.TB, m *os.File, path string) {
	tb.Helper()
	if err := Attach(m, -1, path); err != nil {
		tb.Fatal(err)
	}
	if err := m.Close(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unmount(tb, path) })
}

func unmount(tb testing.TB, path string) {
	tb.Helper()
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		tb.Error(err)
	}
}

// detach unmounts what must not be busy, except for the moment in which a child
// that another test just forked holds copies of all descriptors.
func detach(tb testing.TB, path string) {
	tb.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := unix.Unmount(path, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			tb.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func mount(tb testing.TB, fsType, path, data string) {
	tb.Helper()
	mkdir(tb, path)
	if err := unix.Mount(fsType, path, fsType, 0, data); err != nil {
		tb.Fatalf("mount %s: %v", fsType, err)
	}
	tb.Cleanup(func() { unmount(tb, path) })
}

func mkdir(tb testing.TB, path string) {
	tb.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		tb.Fatal(err)
	}
}

func write(tb testing.TB, path, content string) {
	tb.Helper()
	mkdir(tb, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// owner returns "uid:gid" as the calling process sees them.
func owner(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func wantOwner(tb testing.TB, path, want string) {
	tb.Helper()
	if got := owner(path); got != want {
		tb.Errorf("owner of %s is %s, want %s", path, got, want)
	}
}

// helper prepares a child that runs one of helpers, as root of a user namespace
// if m has a range.
func helper(tb testing.TB, m Mapping, name string, args ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.Stderr = &bytes.Buffer{}
	// No Pdeathsig: the thread that starts it may be thrown away soon.
	cmd.SysProcAttr = &unix.SysProcAttr{}
	if len(m.UIDs) > 0 {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		cmd.SysProcAttr.UidMappings = sysMap(m.UIDs)
		cmd.SysProcAttr.GidMappings = sysMap(m.GIDs)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	return cmd
}

func run(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd.Args, err, cmd.Stderr)
	}
}

func sysMap(ranges []Range) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, r := range ranges {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)})
	}
	return out
}

// mountLines returns the lines of mountinfo that mention dir, to see that a call
// left no mount there.
func mountLines(tb testing.TB, dir string) string {
	tb.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	var found string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, dir) {
			found += line
		}
	}
	return found
}
