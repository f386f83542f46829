// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// facts is what the attacker is told about the host; see package inside.
type facts struct {
	Pid        int
	Namespaces map[string]string
	Abstract   string
	Port       int
	IPCKey     int
	Keys       map[string]int
	Handles    map[string]handle
	MountNS    uint64
	Block      [2]uint32
	HostSocket string
	OtherKey   int
	OtherIPC   int
}

type handle struct {
	Type  int32
	Bytes []byte
}

// host makes things on the host that nobody in a container should reach. dir is
// a volume; what lies beside it is on the same file system.
func host(t *testing.T, n node, dir string) facts {
	t.Helper()
	f := facts{
		Namespaces: map[string]string{}, Keys: n.keys, Handles: map[string]handle{},
		Abstract: fmt.Sprintf("isolate-escape-%d", os.Getpid()), IPCKey: 0x15017,
		HostSocket: filepath.Join(filepath.Dir(dir), "socket"), Block: disk(t),
	}
	f.Pid = sleeper(t)
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		f.Namespaces[kind] = link
		name := kind
		if kind == "pid" {
			name = "ns-pid"
		}
		f.Handles[name] = handleOf(t, "/proc/self/ns/"+kind)
	}
	for _, address := range []string{"@" + f.Abstract, f.HostSocket} {
		serve(t, "unix", address)
	}
	_, port, err := net.SplitHostPort(serve(t, "tcp4", "127.0.0.1:0").String())
	if err != nil {
		t.Fatal(err)
	}
	f.Port = atoi(t, port)

	secret := filepath.Join(filepath.Dir(dir), "secret")
	inner := filepath.Join(dir, "plain")
	for _, path := range []string{secret, inner} {
		if err := os.WriteFile(path, []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.Handles["host-file"] = handleOf(t, secret)
	f.Handles["host-directory"] = handleOf(t, filepath.Dir(dir))
	f.Handles["volume-file"] = handleOf(t, inner)
	f.Handles["pid"] = pidHandle(t, f.Pid)
	f.openHandles(t, dir)
	hostIPC(t, f.IPCKey)
	f.MountNS = mountNS(t)
	return f
}

func (f facts) write(t *testing.T, dir string) {
	t.Helper()
	text, err := json.Marshal(f)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "facts.json"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// disk returns the number of a disk that the machine has.
func disk(t *testing.T) [2]uint32 {
	t.Helper()
	disks, err := filepath.Glob("/sys/block/*/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range disks {
		size, err := os.ReadFile(filepath.Join(filepath.Dir(path), "size"))
		if err != nil || strings.TrimSpace(string(size)) == "0" {
			continue // an empty loop device
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var n [2]uint32
		if _, err := fmt.Sscanf(string(text), "%d:%d", &n[0], &n[1]); err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatal("the machine has no disk")
	return [2]uint32{}
}

// sleeper starts a process whose number no container comes to.
func sleeper(t *testing.T) int {
	t.Helper()
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("20000"), 0); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sleep", "1000")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command.Process.Kill(); err != nil {
			t.Errorf("the host's process is gone: %v", err)
		}
		_ = command.Wait() // killed
	})
	if command.Process.Pid <= 20000 {
		t.Fatalf("process has number %d", command.Process.Pid)
	}
	return command.Process.Pid
}

func serve(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr()
}

func handleOf(t *testing.T, path string) handle {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		t.Logf("no handle of %s: %v", path, err)
		return handle{}
	}
	return handle{h.Type(), h.Bytes()}
}

// openHandles proves that the host can do with the handles what a container must
// not; those that this kernel does not open for anybody are taken out.
func (f facts) openHandles(t *testing.T, volume string) {
	t.Helper()
	const pidfsRoot, nsfsRoot = -10002, -10003 // fcntl.h, Linux 6.15 and 6.18
	file, err := unix.Open(volume, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	for name, h := range f.Handles {
		at, needed := nsfsRoot, false
		switch {
		case name == "pid":
			at = pidfsRoot
		case strings.Contains(name, "-file"), strings.Contains(name, "-dir"):
			at, needed = file, true
		}
		fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(h.Type, h.Bytes), unix.O_RDONLY)
		if err == nil {
			unix.Close(fd)
			continue
		}
		if needed {
			t.Fatalf("open %s by handle: %v", name, err)
		}
		t.Logf("the kernel does not open %s by handle: %v", name, err)
		delete(f.Handles, name)
	}
}

func pidHandle(t *testing.T, pid int) handle {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		t.Logf("no handle of a process: %v", err)
		return handle{}
	}
	return handle{h.Type(), h.Bytes()}
}

func hostIPC(t *testing.T, key int) {
	t.Helper()
	const create, remove = 0o1000, 0
	id, _, errno := unix.Syscall(unix.SYS_SHMGET, uintptr(key), 4096, create|0o666)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unremoved(t, unix.SYS_SHMCTL, id, remove, 0) })
	queue, _, errno := unix.Syscall(unix.SYS_MSGGET, uintptr(key), create|0o666, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unremoved(t, unix.SYS_MSGCTL, queue, remove, 0) })
	set, _, errno := unix.Syscall(unix.SYS_SEMGET, uintptr(key), 1, create|0o666)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { unremoved(t, unix.SYS_SEMCTL, set, 0, remove) })
}

// unremoved fails the test if an object of the host is no longer there.
func unremoved(t *testing.T, call, id, a, b uintptr) {
	t.Helper()
	if _, _, errno := unix.Syscall(call, id, a, b); errno != 0 {
		t.Errorf("remove an IPC object of the host: %v", errno)
	}
}

// session gives this thread, and the containerd that it starts, a session keyring
// with a key in it, as a service or an administrator has. Nothing may happen to
// it until the test ends.
func session(t *testing.T) map[string]int {
	t.Helper()
	runtime.LockOSThread() // the thread ends with the test
	keyring, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	key, err := unix.AddKey("user", "isolate-escape", []byte("secret"), keyring)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text := make([]byte, 6)
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, key, text, 0); err != nil || string(text) != "secret" {
			t.Errorf("the host's key is %q, %v", text, err)
		}
	})
	user, err := unix.KeyctlInt(unix.KEYCTL_GET_KEYRING_ID, unix.KEY_SPEC_USER_KEYRING, 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{"key": key, "session": keyring, "user": user}
}

// mountNS returns the id of the mount namespace, or 0 before Linux 6.11.
func mountNS(t *testing.T) uint64 {
	t.Helper()
	file, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var id uint64
	const getID = 0x8008b705 // NS_GET_MNTNS_ID
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), getID, uintptr(unsafe.Pointer(&id))); errno != 0 {
		t.Logf("no id of the mount namespace: %v", errno)
	}
	return id
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func owner(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// baseOf returns the host id that is root in a process.
func baseOf(t *testing.T, pid int) int {
	t.Helper()
	fields := strings.Fields(read(t, fmt.Sprintf("/proc/%d/uid_map", pid)))
	if len(fields) != 3 {
		t.Fatalf("mapping of %d: %q", pid, fields)
	}
	return atoi(t, fields[1])
}
