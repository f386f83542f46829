// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/testprogram"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/sysinfo"
)

// container is a container whose pivot_root is served by n.
type container struct {
	n       *Notifier
	dir     string // its user can make files there
	state   string // what its runtime sends, instead of what it should
	fetched atomic.Int32
	told    atomic.Int32

	cmd *exec.Cmd
	in  io.Closer
	to  *json.Encoder
	of  *json.Decoder
}

// start starts a container; without views it gets a file for meminfo.
func start(t testing.TB, views Views) *container {
	t.Helper()
	c := listening(t, views)
	c.start(t)
	return c
}

// listening is start without the container itself.
func listening(t testing.TB, views Views) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// Not t.TempDir, which is below a directory closed to others.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c := &container{dir: dir}
	program, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.Chmod(dir, 0o777), testprogram.Write(filepath.Join(dir, "program"), string(program))); err != nil {
		t.Fatal(err)
	}
	if views == nil {
		views = c.meminfo
	}
	c.n, err = Listen(t.Context(), filepath.Join(c.dir, "seccomp.sock"), views, c.tell, nil, nothingElse, allProcessors)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.n.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// tell makes up what sysinfo(2) is to tell.
func (c *container) tell(int) (sysinfo.Info, error) {
	c.told.Add(1)
	return sysinfo.Info{Uptime: 7, Loads: [3]uint64{1, 2, 3}, Procs: 5, Memory: sysinfo.Memory{
		Total: 6 << 30, Free: 5 << 30, Shared: 4096, Buffer: 8192, SwapTotal: 1 << 30, SwapFree: 1 << 29,
	}}, nil
}

func (c *container) meminfo(context.Context) ([]lxcfs.File, error) {
	c.fetched.Add(1)
	path := filepath.Join(c.dir, "meminfo")
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, []byte("limited\n"), 0o644); err != nil {
			return nil, err
		}
	}
	mount, err := mount.CloneTree(-1, path, mount.CloneOptions{Propagation: unix.MS_PRIVATE})
	return []lxcfs.File{{Name: "proc/meminfo", Mount: mount}, {Name: "proc/absent", Mount: reopen(mount)}}, err
}

func reopen(f *os.File) *os.File {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func (c *container) start(t testing.TB) {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1700000000, Size: 65536}}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "container's end")
	c.cmd = exec.CommandContext(t.Context(), filepath.Join(c.dir, "program"))
	c.cmd.Env = append(os.Environ(), asContainer+"=outer")
	c.cmd.Stderr = os.Stderr
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
		Pdeathsig:  syscall.SIGKILL,
	}
	in, err1 := c.cmd.StdinPipe()
	out, err2 := c.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, c.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(c.stop)
	c.in, c.to, c.of = in, json.NewEncoder(in), json.NewDecoder(out)

	// What a runtime does: take the descriptor and send it on.
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], buf, oob, unix.MSG_CMSG_CLOEXEC)
	unix.Close(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := disposable.Descriptors(oob[:n])
	if err != nil || len(fds) != 1 {
		t.Fatalf("got descriptors %v, %v", fds, err)
	}
	defer unix.Close(fds[0])
	state := c.state
	if state == "" {
		state = `{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":1,"state":{"id":"x"}}`
	}
	held := c.held()
	send(t, c.n, state, fds...)
	c.awaitHeld(t, held+1) // until it is served
}

// held is how many descriptors and connections the notifier has.
func (c *container) held() int {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return len(c.n.files)
}

func (c *container) awaitHeld(t testing.TB, want int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		held := c.held()
		if held == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the notifier holds %d descriptors, want %d", held, want)
		}
	}
}

func (c *container) stop() {
	c.in.Close()
	c.cmd.Process.Kill() //nolint:errcheck // it may have ended
	c.cmd.Wait()         //nolint:errcheck // it was killed
}

func send(t testing.TB, n *Notifier, state string, fds ...int) {
	t.Helper()
	conn, err := net.Dial("unix", n.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	half := len(state) / 2 // the kernel may split it anywhere
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("connection is a %T", conn)
	}
	if _, _, err := unixConn.WriteMsgUnix([]byte(state[:half]), unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if _, err := conn.Write([]byte(state[half:])); err != nil {
		t.Fatal(err)
	}
}

func (c *container) do(t testing.TB, o order) answer {
	t.Helper()
	o.Root = filepath.Join(c.dir, "root")
	if err := os.Mkdir(o.Root, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if o.Proc == "" {
		o.Proc = "proc"
	}
	var a answer
	if err := errors.Join(c.to.Encode(o), c.of.Decode(&a)); err != nil {
		t.Fatal(err)
	}
	if a.Error != "" {
		t.Fatalf("%+v: %s", o, a.Error)
	}
	return a
}

// device makes a FUSE device that the container may open.
func (c *container) device(t *testing.T) string {
	t.Helper()
	path := filepath.Join(c.dir, "fuse")
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229)))
	if err := errors.Join(err, os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGraft(t *testing.T) {
	c := start(t, nil)
	device := c.device(t)
	for _, test := range []struct {
		name string
		o    order
		want string
	}{
		{"runtime", order{}, "limited"},
		{"runtime in a user namespace", order{Nested: true}, "limited"},
		{"root by path", order{Path: true}, "limited"},
		{"root on FUSE", order{Fuse: device}, "limited"},
		{"root on FUSE in a user namespace", order{Fuse: device, Nested: true}, "limited"},
		{"no proc", order{Proc: "none"}, "none"},
		{"something else on proc", order{Proc: "tmpfs"}, "mine"},
		{"own view", order{Proc: "covered"}, "mine"},
		{"proc is a link", order{Proc: "link"}, "MemTotal"},
		{"own root", order{Same: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := c.do(t, test.o)
			if !strings.HasPrefix(a.Meminfo, test.want) {
				t.Errorf("saw %q, want %q", a.Meminfo, test.want)
			}
			t.Logf("pivot_root took %v", a.Took)
		})
	}
	if clonable(t) && c.fetched.Load() != 1 {
		t.Errorf("views were fetched %d times", c.fetched.Load())
	}
}

// clonable tells whether this kernel clones detached mounts.
func clonable(t *testing.T) bool {
	t.Helper()
	a, err := mount.CloneTree(-1, t.TempDir(), mount.CloneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := mount.CloneTree(int(a.Fd()), "", mount.CloneOptions{})
	if err == nil {
		b.Close()
	}
	return err == nil
}

// TestGraftWithoutClones is the way of kernels before 6.15.
func TestGraftWithoutClones(t *testing.T) {
	c := start(t, nil)
	c.n.store.mu.Lock()
	c.n.store.clone = func([]lxcfs.File) ([]lxcfs.File, error) { return nil, unix.EINVAL }
	c.n.store.mu.Unlock()
	for range 3 {
		if a := c.do(t, order{}); a.Meminfo != "limited" {
			t.Errorf("saw %q", a.Meminfo)
		}
	}
	if got := c.fetched.Load(); got < 3 {
		t.Errorf("views were fetched %d times", got)
	}
}

// TestFullBudgetAsksNobody: to read the quotas of all control groups was a
// thousandth of a second of each start.
func TestFullBudgetAsksNobody(t *testing.T) {
	t.Parallel()
	asked := 0
	b := budget{processors: func() float64 { asked++; return 1 }}
	now := time.Now()
	if late := b.wait(now); late != 0 || asked != 0 {
		t.Errorf("before the first one: waits for %v, asked %d times", late, asked)
	}
	b.spend(burst + time.Millisecond)
	if late := b.wait(now); late != 20*time.Millisecond || asked != 1 {
		t.Errorf("overdrawn: waits for %v, asked %d times", late, asked)
	}
}

// TestBudgetHoldsBack: a container that has used up what it may make the shim
// spend waits, without costing anything, and still gets its views.
func TestBudgetHoldsBack(t *testing.T) {
	c := start(t, nil)
	c.do(t, order{}) // has the views ready
	began := time.Now()
	c.n.budget.mu.Lock()
	c.n.budget.left, c.n.budget.rate, c.n.budget.last, c.n.budget.asked = -100*time.Millisecond, 0.25, began, began
	c.n.budget.mu.Unlock()
	c.do(t, order{}) // was waited for before that
	a := c.do(t, order{})
	if a.Meminfo != "limited" {
		t.Errorf("saw %q", a.Meminfo)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("went on after %v", took)
	}
}

// TestStorm: pivot_root in a loop makes the shim spend no more than a tenth of
// what the container may use.
func TestStorm(t *testing.T) {
	c := start(t, nil)
	c.do(t, order{})
	c.n.budget.mu.Lock()
	c.n.budget.processors = func() float64 { return 1 }
	c.n.budget.left, c.n.budget.asked = 0, time.Time{}
	c.n.budget.mu.Unlock()
	var before, after unix.Rusage
	began := time.Now()
	err := unix.Getrusage(unix.RUSAGE_SELF, &before)
	c.do(t, order{Times: 100, Proc: "none"})
	if err := errors.Join(err, unix.Getrusage(unix.RUSAGE_SELF, &after)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	consumed := func(r *unix.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }
	if used := consumed(&after) - consumed(&before); used > took/10 {
		t.Errorf("spent %v in %v", used, took)
	}
}

// TestHungContainer: a FUSE server of the container takes the shim's request and
// never answers.
func TestHungContainer(t *testing.T) {
	c := start(t, nil)
	device := c.device(t)
	c.do(t, order{}) // has the views ready
	a := c.do(t, order{Fuse: device, Hang: true})
	if a.Took < Limit-50*time.Millisecond || a.Took > 2*Limit {
		t.Errorf("pivot_root took %v, want about %v", a.Took, Limit)
	}
	// The server ended with the process; so does what hung in it.
	deadline := time.Now().Add(5 * time.Second)
	for len(c.n.slots) > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if len(c.n.slots) > 0 {
		t.Error("a process still hangs")
	}
	if a := c.do(t, order{}); a.Meminfo != "limited" {
		t.Errorf("saw %q", a.Meminfo)
	}
}

// served is a FUSE mount of the test's own, which stands for lxcfs.
func served(t *testing.T) (device int, views Views) {
	t.Helper()
	dir := t.TempDir()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		t.Skip("needs /dev/fuse")
	}
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device)
	if err := unix.Mount("fuse", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return device, func(context.Context) ([]lxcfs.File, error) {
		mount, err := mount.CloneTree(-1, dir, mount.CloneOptions{})
		return []lxcfs.File{{Name: "proc/meminfo", Mount: mount}}, err
	}
}

func TestDeadServer(t *testing.T) {
	device, dead := served(t)
	living := &container{dir: t.TempDir()}
	var asked atomic.Int32
	c := start(t, func(ctx context.Context) ([]lxcfs.File, error) {
		if asked.Add(1) == 1 {
			return dead(ctx)
		}
		return living.meminfo(ctx)
	})
	unix.Close(device)
	a := c.do(t, order{})
	if a.Meminfo != "limited" || asked.Load() != 2 {
		t.Errorf("saw %q after %d looks, want that of the new server", a.Meminfo, asked.Load())
	}
}

func TestHungServer(t *testing.T) {
	device, views := served(t)
	c := start(t, views)
	a := c.do(t, order{})
	if !strings.HasPrefix(a.Meminfo, "MemTotal") || a.Took > 2*Limit {
		t.Errorf("saw %q after %v", a.Meminfo, a.Took)
	}
	for failed := false; !failed; { // a moment after the call went on
		time.Sleep(time.Millisecond)
		c.n.store.mu.Lock()
		failed = !c.n.store.failed.IsZero()
		c.n.store.mu.Unlock()
	}
	// It is remembered.
	if a := c.do(t, order{}); !strings.HasPrefix(a.Meminfo, "MemTotal") || a.Took > Limit/2 {
		t.Errorf("saw %q after %v", a.Meminfo, a.Took)
	}
	unix.Close(device)
}

func TestSlowViews(t *testing.T) {
	c := start(t, func(ctx context.Context) ([]lxcfs.File, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if a := c.do(t, order{}); !strings.HasPrefix(a.Meminfo, "MemTotal") || a.Took > 2*Limit {
		t.Errorf("saw %q after %v", a.Meminfo, a.Took)
	}
}

// TestEnd: descriptors are given back when the last process is gone.
func TestEnd(t *testing.T) {
	c := start(t, nil)
	c.do(t, order{})
	c.stop()
	c.awaitHeld(t, 0)
}

func TestListenRefuses(t *testing.T) {
	t.Parallel()
	if n, err := Listen(t.Context(), "/"+strings.Repeat("x", maxPath), nil, nil, nil, nothingElse, allProcessors); err == nil {
		n.Close()
		t.Error("took a path that is too long")
	}
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(t.Context(), path, nil, nil, nil, nothingElse, allProcessors)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// Neither nonsense nor a descriptor of another kind stops it.
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	send(t, first, `{"fds":["seccompFd"]}`, int(null.Fd()))
	send(t, first, `{"fds":["other"]}`, int(null.Fd()))
	send(t, first, `nonsense`, int(null.Fd()))
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left the socket behind: %v", err)
	}
}

// BenchmarkPivotRoot reports how long an inner container is held up.
func BenchmarkPivotRoot(b *testing.B) {
	c := start(b, nil)
	c.n.budget.mu.Lock()
	c.n.budget.left = time.Hour
	c.n.budget.mu.Unlock()
	c.do(b, order{})
	for _, proc := range []string{"proc", "none"} {
		b.Run(proc, func(b *testing.B) {
			a := c.do(b, order{Times: b.N, Proc: proc})
			b.ReportMetric(float64(a.Took.Nanoseconds()), "ns/pivot_root")
		})
	}
}

func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, try := range map[string]func() (syscall.Errno, error){"by a fork": tryListener, "without one": refused} {
		if errno, err := try(); errno != 0 || err != nil {
			t.Errorf("no listener, %s: %v, %v", name, errno, err)
		}
	}
	c := start(t, nil)
	if a := c.do(t, order{Probe: true}); a.Meminfo != unix.EBUSY.Error() {
		t.Errorf("under a listener: %q", a.Meminfo)
	}
}

func nothingElse(int) error { return nil }

func allProcessors() float64 { return float64(runtime.NumCPU()) }
