// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSocketPaths: the sockets of a group's shim stayed when `delete` was faster
// than the end of the shim.
func TestSocketPaths(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	listening, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	connection, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	connected, err := connection.File()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{listener, listening, connection, connected, null} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	got := socketPaths(int(connected.Fd()), int(null.Fd()), int(listening.Fd()), 1<<20)
	if want := []string{path}; !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
}

// TestSocketIsRemovedAfterItsDescriptorWasClosed: the socket of a group's shim that ran
// for half a minute stayed, since the garbage collector had closed the descriptor.
func TestSocketIsRemovedAfterItsDescriptorWasClosed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listening, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	remove := removeSockets(int(listening.Fd()))
	if err := errors.Join(listening.Close(), listener.Close(), remove(t.Context())); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

// TestHasClient: a shim is not alone as long as somebody is connected to it.
func TestHasClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	served, other := filepath.Join(dir, "s"), filepath.Join(dir, "o")
	accept := func(path string) (client, server net.Conn) {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() }) //nolint:errcheck // of a test
		client, err = net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if server, err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); server.Close() })
		return client, server
	}
	accept(other)
	connected := hasClient(served)
	if connected() {
		t.Error("somebody is connected to a socket that is not there")
	}
	_, server := accept(served)
	if !connected() {
		t.Error("nobody is connected, where a client is")
	}
	server.Close()
	if connected() {
		t.Error("a client is connected that has left, while the shim listens")
	}
	if !hasClient()() {
		t.Error("nobody is connected to a shim whose sockets are not known")
	}
}
