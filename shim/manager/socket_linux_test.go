// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSocketAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"containerd 2", map[string]string{"bootstrap.json": `{"version":3,"address":"unix:///s","protocol":"ttrpc"}`}, "unix:///s"},
		{"containerd 1.7", map[string]string{"address": "unix:///s"}, "unix:///s"},
		{"both", map[string]string{"bootstrap.json": `{"address":"unix:///new"}`, "address": "unix:///old"}, "unix:///new"},
		{"cut off, with the old one", map[string]string{"bootstrap.json": `{"addr`, "address": "unix:///s"}, "unix:///s"},
		{"cut off", map[string]string{"bootstrap.json": `{"addr`}, ""},
		{"empty", map[string]string{"bootstrap.json": "", "address": ""}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, c.files)
			if got := socketAddress(dir); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// stale leaves a socket file that nobody listens on.
func stale(t *testing.T, address string) string {
	t.Helper()
	path := strings.TrimPrefix(address, "unix://")
	// A child that another test is just starting would listen on it for a moment longer.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSocketsOfKilledShimAreRemoved includes the one for profiles, which nothing
// names.
func TestSocketsOfKilledShimAreRemoved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, spec, group string }{
		{"alone", `{}`, "a"},
		{"without a spec", ``, "a"},
		{"in a pod", `{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`, "pod"},
		{"in a group", `{"annotations":{"io.containerd.runc.v2.group":"g","io.kubernetes.cri.sandbox-id":"pod"}}`, "g"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "s") // short: socket paths have 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			ctx := namespaces.WithNamespace(t.Context(), "test")
			address := func(group string, debug bool) string {
				a, err := shim.CreateSocketAddress(ctx, dir, "/c.sock", group, debug)
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			bundle := filepath.Join(t.TempDir(), "a")
			if err := os.Mkdir(bundle, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, bundle, map[string]string{"config.json": c.spec, "address": address(c.group, false)})
			own := []string{stale(t, address(c.group, false)), stale(t, address(c.group, true))}
			other := stale(t, address("other", true))

			removeStale(ctx, sockets(ctx, bundle, []string{"-namespace", "test", "-address", "/c.sock", "-id", "a", "delete"}), false)
			for _, path := range own {
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", path, err)
				}
			}
			if _, err := os.Lstat(other); err != nil {
				t.Errorf("another shim's: %v", err)
			}
		})
	}
}

// TestSocketOfLivingShimStays: also of one that has no time for another connection.
func TestSocketOfLivingShimStays(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"address": "unix://" + path})
	for busy := false; !busy; { // until the queue of connections is full
		conn, err := net.Dial("unix", path)
		if busy = errors.Is(err, unix.EAGAIN); !busy && err != nil {
			t.Fatal(err)
		}
		if err == nil {
			defer conn.Close()
		}
		removeStale(t.Context(), sockets(t.Context(), dir, nil), false)
		if _, err := os.Lstat(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSocketsOfRemovedBundle covers a race: after a create that failed, containerd
// removes the bundle while `delete` runs.
func TestSocketsOfRemovedBundle(t *testing.T) {
	t.Parallel()
	ctx := namespaces.WithNamespace(t.Context(), "test")
	var want []string
	for _, debug := range []bool{false, true} {
		a, err := shim.SocketAddress(ctx, "/c.sock", "a", debug)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, a)
	}
	got := sockets(ctx, "/nowhere/test/a", []string{"-address", "/c.sock", "-bundle", "/nowhere/test/a", "delete"})
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSocketThatNobodyComputes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := namespaces.WithNamespace(t.Context(), "test")
	for name, args := range map[string][]string{"another containerd": {"-address", "/other.sock", "delete"}, "unknown flag": {"-x"}} {
		if got := debugAddress(ctx, dir, "unix:///run/s/abc", args); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
