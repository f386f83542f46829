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
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

const (
	// maxPath is the longest name of a unix socket (unix(7)).
	maxPath = 107
	// maxMessage bounds a container process state, in bytes. The state has the
	// annotations in it, of which Kubernetes allows 256 KiB.
	maxMessage = 4 << 20
)

// Notifier answers the notifications of one container's processes.
type Notifier struct {
	listener *net.UnixListener
	store    *store
	budget   budget
	warnings atomic.Int32
	slots    chan struct{} // one place for each process that grafts
	tell     Tell
	shelve   Shelve
	share    func(pid int) error
	// toldOfHost is set once sysinfo(2) went on to the kernel.
	toldOfHost atomic.Bool
	pen        pen
	// wrap stands between serve and a descriptor, in tests.
	wrap   func(syscall.RawConn) syscall.RawConn
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	files   map[io.Closer]struct{} // connections and seccomp descriptors
	serving sync.WaitGroup
	answers sync.WaitGroup
}

// Listen makes the socket for linux.seccomp.listenerPath and serves the seccomp
// descriptors that arrive there: one for the init process and one for each process that
// is executed later. It must be called before the runtime's create, which fails if no
// process listens. ctx serves for logging only.
//
// Runtimes connect before they enter the container, in the shim's mount
// namespace and as the shim's user (runc 1.1 to 1.5: the parent process; crun 1.8
// to 1.21: before it forks), so the socket is open to this user alone.
//
// processors returns how many processors the container may use; it is called from time
// to time. The shim spends at most a tenth of that on notifications. share gets the
// process in which an inner runtime has called pivot_root, to do what else the views need.
func Listen(ctx context.Context, path string, views Views, tell Tell, shelve Shelve, share func(pid int) error, processors func() float64) (*Notifier, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen for seccomp notifications on %q: the path is longer than %d bytes", path, maxPath)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The file gets the mode that the socket has before bind, so at no
		// time can others connect.
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for seccomp notifications: %w", err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen for seccomp notifications: got a %T", l), l.Close())
	}
	n := &Notifier{
		listener: listener,
		store:    newStore(views),
		budget:   budget{processors: processors},
		slots:    make(chan struct{}, 4),
		tell:     tell,
		shelve:   shelve,
		share:    share,
		files:    map[io.Closer]struct{}{},
		wrap:     func(raw syscall.RawConn) syscall.RawConn { return raw },
	}
	n.pen = newPen(&n.budget)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	n.serving.Go(n.accept)
	return n, nil
}

// Prepare keeps views ready for the first inner container: clones of the given ones,
// which stay the caller's. If the kernel cannot clone them (before Linux 6.15) and an
// inner container is likely, it fetches others in the background.
//
// The kept views pin the file system of their server, as the container's own views do.
// They are not used without asking the server.
func (n *Notifier) Prepare(views []lxcfs.File, likely bool) error { return n.store.keep(views, likely) }

// Refresh forgets the kept views after their server was replaced. It is not necessary,
// since a dead server is noticed; but until then the kept views hold the dead file
// system.
func (n *Notifier) Refresh() { n.store.drop() }

// Close stops everything. Calls that wait go on; later calls fail with ENOSYS in the
// container. It must be called only when the container is gone.
func (n *Notifier) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	err := n.listener.Close()
	n.answers.Wait()
	n.mu.Lock()
	for f := range n.files {
		f.Close()
	}
	n.mu.Unlock()
	n.serving.Wait()
	n.pen.close()
	n.store.close()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close seccomp listener: %w", err)
	}
	return nil
}

// hold notes f for Close to close, and returns false if the Notifier is closed already.
// release takes f back and closes it.
func (n *Notifier) hold(f io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.files[f] = struct{}{}
	}
	return !n.closed
}

func (n *Notifier) release(f io.Closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.files, f)
	f.Close()
}

func (n *Notifier) accept() {
	for {
		conn, err := n.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // for example, no descriptor is free
			log.G(n.ctx).WithError(err).Warn("isolate: cannot accept a connection with a seccomp descriptor")
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		}
		n.serving.Go(func() { n.connection(conn) })
	}
}

func (n *Notifier) connection(conn *net.UnixConn) {
	if !n.hold(conn) {
		conn.Close() //nolint:errcheck // nothing is written to it
		return
	}
	f, m, err := receive(conn)
	n.release(conn)
	switch {
	case f == nil:
		log.G(n.ctx).WithError(err).Warn("isolate: receive seccomp descriptor; pivot_root will fail in this process of the container")
		return
	case err != nil:
		log.G(n.ctx).WithError(err).Warn("isolate: the message with a seccomp descriptor is wrong")
	}
	if !n.hold(f) {
		f.Close()
		return
	}
	defer n.release(f)
	log.G(n.ctx).WithField("container", m.Container).Debug("isolate: serving seccomp notifications")
	if err := n.serve(f); err != nil {
		log.G(n.ctx).WithError(err).Warn("isolate: cannot serve seccomp notifications")
	}
}

// receive reads a container process state and returns the seccomp descriptor that came
// with it. It returns the descriptor also beside an error: if the descriptor were
// dropped, pivot_root would fail for good in the process that it belongs to.
func receive(conn *net.UnixConn) (_ *os.File, m message, _ error) {
	data, fds, err := readState(conn)
	if err == nil {
		m, err = parseMessage(data, len(fds))
	}
	at := m.Index
	if err != nil {
		at = max(0, slices.IndexFunc(fds, func(fd int) bool { return listener(fd) == nil }))
	}
	var file *os.File
	for i, fd := range fds {
		if i == at {
			if wrong := listener(fd); wrong != nil {
				err = errors.Join(err, wrong)
			} else if wrong := unix.SetNonblock(fd, true); wrong != nil { // for the runtime's poller; no ioctl heeds it
				err = errors.Join(err, os.NewSyscallError("fcntl", wrong))
			} else {
				file = os.NewFile(uintptr(fd), "seccomp notify")
				continue
			}
		}
		unix.Close(fd)
	}
	return file, m, err
}

// listener says why a descriptor is no seccomp listener; nil if it is one. On another
// file our ioctls could mean something else.
func listener(fd int) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil && name != "anon_inode:seccomp notify" {
		err = fmt.Errorf("%s is no seccomp listener", name)
	}
	return err
}

// readState reads a container process state and the descriptors that come with it. The
// descriptors belong to the caller, also after an error. It reads no further than
// needed, since crun's parent process keeps its end open for a while; and as long as it
// takes, since crun connects before all else that it does, which takes many seconds on
// a busy machine. A runtime that hangs is ended by who waits for it.
func readState(conn *net.UnixConn) (data []byte, fds []int, _ error) {
	chunk, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*8))
	for !json.Valid(data) {
		if len(data) > maxMessage {
			return nil, fds, fmt.Errorf("container process state is longer than %d bytes", maxMessage)
		}
		count, oobCount, flags, _, err := conn.ReadMsgUnix(chunk, oob)
		if err == nil && count == 0 && oobCount == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fds, fmt.Errorf("read container process state: %w", err)
		}
		more, err := disposable.Descriptors(oob[:oobCount])
		fds = append(fds, more...)
		if err == nil && flags&unix.MSG_CTRUNC != 0 {
			err = errors.New("too many descriptors")
		}
		if err != nil {
			return nil, fds, fmt.Errorf("read container process state: %w", err)
		}
		data = append(data, chunk[:count]...)
	}
	return data, fds, nil
}
