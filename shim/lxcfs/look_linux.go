// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/shim/config"
)

// Served is what an lxcfs serves.
type Served struct {
	// Root is its mount point.
	Root string
	// Device numbers its superblock, as in mountinfo.
	Device Device
	// Seen is when it answered, since boot (CLOCK_BOOTTIME).
	Seen time.Duration
	// Files are those that it serves; one of them could be read a moment ago.
	Files []File
	// Skipped are files that exist and cannot be used, and why.
	Skipped map[string]error
}

// File is one file of lxcfs.
type File struct {
	// Name is relative to the root: "proc/meminfo". It has the same place
	// below "/" of a container.
	Name string
	// Mount is the file as a detached mount, to be attached with move_mount(2).
	// Attaching uses it up; closing it then leaves the mount where it is.
	Mount *os.File
}

// Close releases the mounts.
func (s Served) Close() error {
	var errs []error
	for _, f := range s.Files {
		if err := f.Mount.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Look is a look at lxcfs that is under way. It takes about as long as starting
// a process and reading a dozen files, and goes on beside other work.
type Look struct {
	cfg    config.LXCFS
	cancel context.CancelFunc
	found  chan struct{} // closed when it is known what is mounted
	done   chan struct{}

	mounts []mount
	served Served
	err    error
	once   sync.Once
}

// Start begins to look at lxcfs as the configuration says. The caller must call
// Close.
func Start(ctx context.Context, cfg config.LXCFS) *Look {
	l := &Look{cfg: cfg, found: make(chan struct{}), done: make(chan struct{})}
	if cfg.Mode == config.LXCFSOff {
		l.cancel = func() {}
		l.err = ErrOff
		close(l.found)
		close(l.done)
		return l
	}
	ctx, l.cancel = context.WithTimeout(ctx, cfg.Timeout())
	go func() {
		defer close(l.done)
		l.mounts, l.err = find(cfg.Path)
		close(l.found)
		if l.err == nil {
			l.served, l.err = look(ctx, cfg, l.mounts)
		}
	}()
	return l
}

// Mounted tells, at once, whether there is an lxcfs to look at. It may be dead.
func (l *Look) Mounted() bool {
	<-l.found
	return len(l.mounts) > 0
}

// Result waits for the look to end, at most until the configured timeout is
// over. The files stay the Look's: they are closed with it.
func (l *Look) Result() (Served, error) {
	<-l.done
	return l.served, l.err
}

// Required tells whether a container must not start without lxcfs.
func (l *Look) Required() bool { return l.cfg.Mode == config.LXCFSRequire }

// Close ends the look if it is under way and closes the files. It may be called
// more than once.
func (l *Look) Close() error {
	var err error
	l.once.Do(func() {
		l.cancel()
		<-l.done
		err = l.served.Close()
	})
	return err
}

// find returns the mounts of lxcfs that choose chooses.
func find(path string) ([]mount, error) {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fsType))
	if err != nil {
		return nil, fmt.Errorf("look for lxcfs: %w", err)
	}
	return choose(infos, path)
}

// look tries the mounts until one serves.
func look(ctx context.Context, cfg config.LXCFS, mounts []mount) (Served, error) {
	var first error
	for _, m := range mounts {
		served, err := lookAt(ctx, m, cfg.Timeout())
		if err == nil {
			return served, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Served{}, first
}

// lookAt runs a child that looks at one mount. It returns when the child has
// told everything or ctx is over, whatever became of the child.
func lookAt(ctx context.Context, m mount, limit time.Duration) (_ Served, retErr error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return Served{}, fmt.Errorf("look at lxcfs: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	p, err := spawn([]*os.File{theirs}, childName, m.Root, strconv.Itoa(m.ID), (limit + grace).String())
	if err := errors.Join(err, theirs.Close()); err != nil {
		return Served{}, fmt.Errorf("look at lxcfs: %w", err)
	}
	defer p.kill()

	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // fails if closed: over anyway
	defer stop()
	served := Served{Root: m.Root, Device: m.Device, Skipped: map[string]error{}}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, served.Close())
		}
	}()
	for {
		msg, mount, err := receive(conn)
		switch {
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			p.hang()
			return served, hung(m.Root, limit)
		case ctx.Err() != nil:
			return served, fmt.Errorf("look at lxcfs on %q: %w", m.Root, ctx.Err())
		case err != nil:
			return served, fmt.Errorf("look at lxcfs on %q: %w", m.Root, err)
		case msg.End:
			served.Seen = sinceBoot()
			return served, verdict(served, msg)
		case msg.File != "":
			served.Files = append(served.Files, File{Name: msg.File, Mount: mount})
		case msg.Skip != "":
			served.Skipped[msg.Skip] = msg.Errno
		}
	}
}

// verdict tells what a complete report means.
func verdict(s Served, end message) error {
	switch {
	case end.Hidden:
		return absent(fmt.Sprintf("its mount on %q is hidden: %s", s.Root, end.Failed))
	case end.Errno == unix.ENOTCONN || end.Errno == unix.ECONNABORTED:
		return dead(s.Root, end.Errno)
	case end.Errno == unix.EACCES || end.Errno == unix.EPERM:
		return refused(s.Root, end.Errno)
	case end.Failed != "":
		return fmt.Errorf("look at lxcfs on %q: %s", s.Root, end.Failed)
	case len(s.Files) > 0:
		return nil
	}
	for name, err := range s.Skipped {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return refused(s.Root, fmt.Errorf("%s: %w", name, err))
		}
	}
	return dead(s.Root, errors.New("it serves no file"))
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // then whatever is asked about it looks later
	}
	return time.Duration(ts.Nano())
}

// socketPair returns a connected pair: ours, and the child's.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "lxcfs look"), os.NewFile(uintptr(fds[1]), "lxcfs look, child")
	defer ours.Close() //nolint:errcheck // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("socketpair is a %T", conn), conn.Close(), theirs.Close())
	}
	return unixConn, theirs, nil
}

// grace is how much longer than its parent a child waits: that ends it by itself
// only if the parent is gone.
const grace = time.Second

// process is a disposable child.
type process struct {
	cmd  *exec.Cmd
	late atomic.Int32 // of the states below
}

const (
	running int32 = iota
	ended
	stuck
)

// waiting counts those that did not end in time and still have not.
var waiting atomic.Int32

// Waiting tells whether a server that did not answer in time still does not. It
// is for those who ask again and again: each time leaves a process waiting.
func Waiting() bool { return waiting.Load() > 0 }

// spawn starts a child: this very program, which calls MaybeChild first.
func spawn(files []*os.File, args ...string) (*process, error) {
	// Not by exec.CommandContext: its end is bound to the child's.
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // as above
	cmd.Args = args
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"} // it lives for milliseconds
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start child: %w", err)
	}
	p := &process{cmd: cmd}
	go func() {
		_ = cmd.Wait() // its answer is what counts
		if !p.late.CompareAndSwap(running, ended) {
			waiting.Add(-1)
		}
	}()
	return p, nil
}

// kill ends the child, by pidfd, and does not wait: a child that waits for the
// server in the kernel dies when the server answers or goes away. Somebody else
// may reap it, too; in the shim that is containerd's reaper.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// hang notes that the child did not answer in time.
func (p *process) hang() {
	waiting.Add(1)
	if !p.late.CompareAndSwap(running, stuck) {
		waiting.Add(-1) // it has ended
	}
}

// receive reads one message and the mount that comes with it.
func receive(conn *net.UnixConn) (_ message, _ *os.File, retErr error) {
	data, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return message{}, nil, err
	}
	mounts, err := descriptors(oob[:oobn])
	if err != nil {
		return message{}, nil, err
	}
	defer func() {
		if retErr != nil {
			for _, f := range mounts {
				_ = f.Close() // a message that is refused
			}
		}
	}()
	if n == 0 && len(mounts) == 0 {
		return message{}, nil, fmt.Errorf("the child ended early: %w", io.ErrUnexpectedEOF)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return message{}, nil, errors.New("message was cut off")
	}
	msg, err := decode(data[:n])
	if err != nil {
		return message{}, nil, err
	}
	if want := msg.File != ""; want != (len(mounts) == 1) {
		return message{}, nil, fmt.Errorf("message with %d descriptors", len(mounts))
	}
	if msg.File == "" {
		return msg, nil, nil
	}
	return msg, mounts[0], nil
}

// descriptors takes the files out of a control message. Go reads with
// MSG_CMSG_CLOEXEC.
func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for _, c := range controls {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "lxcfs file"))
		}
	}
	return files, nil
}
