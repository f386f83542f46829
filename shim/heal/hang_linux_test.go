// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/config"
)

// TestHungServer: somebody waits for a server, so it is asked, and its files are taken
// away without waiting for it. A server that is not the host's is left alone, whatever
// its container does.
func TestHungServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	server, files := serve(t, "fuse.lxcfs")
	own, ownFiles := serve(t, "fuse.lxcfs")
	c, liar := containerIn(t, plainRoot(t), files+"/proc/meminfo"), containerIn(t, plainRoot(t), ownFiles+"/proc/meminfo")
	if err := unix.Unmount(ownFiles, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	all := []*watched{liar, c}
	w := &watch{mountinfo: -1}
	w.hang.open(nil)
	defer w.forget()
	if len(w.hang.requests) == 0 || w.look() || !w.looks(all) {
		t.Fatalf("%d connections; all is well", len(w.hang.requests))
	}
	if w.suspect(t.Context(), all); w.hang.hangs || shown(t, c.Init) != 1 {
		t.Fatal("it answers, and is taken for one that hangs")
	}
	server.Hang.Store(true)
	own.Hang.Store(true)
	reader := exec.Command("stat", files+"/proc/meminfo")
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = reader.Wait() // it fails
		close(ended)
	}()
	for deadline := time.Now().Add(20 * time.Second); !w.look(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody sees that it hangs")
		}
	}
	began := time.Now()
	w.suspect(t.Context(), all)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if !w.hang.hangs || !w.hang.told || shown(t, c.Init) != 0 || shown(t, liar.Init) != 1 {
		t.Errorf("hangs %v, told %v; the container has %d files, one with a server of its own %d", w.hang.hangs, w.hang.told, shown(t, c.Init), shown(t, liar.Init))
	}
	if w.look() {
		t.Error("it seems to answer while somebody waits")
	}
	w.abort(t.Context(), []*watched{{Container: Container{LXCFS: config.LXCFS{AbortHung: true}}}}, w.hang.devices)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("who waits is not freed")
	}
	if !w.look() || !w.looks(all) {
		t.Error("nobody waits, and nobody would try again")
	}
	c.stale = false
	if w.suspect(t.Context(), all); !c.stale {
		t.Error("nobody would look for a server")
	}
}

// TestLookAtStopped: a server that is stopped is suspected, and no other one.
func TestLookAtStopped(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	cmd := startLxcfs(t, root)
	var w watch
	for deadline := time.Now().Add(20 * time.Second); len(w.servers) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not found")
		}
		if s, ok := openServer(cmd.Process.Pid, []string{root}); ok && len(s.roots) > 0 { // it has the name only when it is executed
			w.servers = []server{s}
		} else if ok {
			s.Close()
		}
	}
	w.hang.open(w.servers)
	t.Cleanup(w.forget)
	for _, r := range w.hang.requests { // others' servers
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	w.hang.requests = nil
	if w.look() {
		t.Error("suspected while it runs")
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !w.look(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not suspected although it is stopped")
		}
	}
}

// TestLookAtStuck: a server that was killed while one of its threads cannot end is
// suspected.
func TestLookAtStuck(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{stuckName}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	stat, err := os.Open(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	w := watch{hang: hang{states: []*os.File{stat}}}
	t.Cleanup(w.hang.close)
	for deadline := time.Now().Add(20 * time.Second); !w.look(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not suspected although its main thread has ended")
		}
	}
}

func BenchmarkLook(b *testing.B) {
	self, err := os.Open("/proc/self/stat")
	if err != nil {
		b.Fatal(err)
	}
	w := watch{hang: hang{states: []*os.File{self}}}
	b.Cleanup(w.hang.close)
	for b.Loop() {
		w.look()
	}
}
