// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// childName is argv[0] of the disposable process that works in a container's mounts.
const childName = "isolate-heal"

// MaybeChild must be called first in main by every program that uses this package:
// if the process is the disposable child, it does its work and does not return.
func MaybeChild() {
	if len(os.Args) == 2 && os.Args[0] == childName {
		os.Exit(child(os.Args[1], os.Stdin))
	}
}

// request is what a child does in the mount namespace of a process: one of the lists.
type request struct {
	Process proc.ID `json:"process"`
	// Open are mounts of which one of each server is sent back.
	Open []lxcfs.MountedFile `json:"open,omitempty"`
	// Detach are mounts to detach.
	Detach []lxcfs.MountedFile `json:"detach,omitempty"`
	// Attach are places of the files that the child was given.
	Attach []string `json:"attach,omitempty"`
}

// answer tells of one entry of a list.
type answer struct {
	Entry int `json:"entry"`
	// Left means that it was left alone, because of what the container has done.
	Left   bool   `json:"left,omitempty"`
	Failed string `json:"failed,omitempty"`
	// End is set in the last answer; then Ended tells that there is no such process.
	End   bool `json:"end,omitempty"`
	Ended bool `json:"ended,omitempty"`
}

// Bounds of what a child sends.
const (
	maxAnswer  = 4096
	maxReason  = 512 // with each byte as \u0000 in JSON it still fits
	maxServers = 16  // of one mount namespace
)

func child(limit string, stdin io.Reader) int {
	d, err := time.ParseDuration(limit)
	var q request
	if err := errors.Join(err, json.NewDecoder(stdin).Decode(&q)); err != nil {
		return 2
	}
	// The parent kills a late child; this is for a parent that is gone.
	time.AfterFunc(d, func() { os.Exit(3) })
	last := answer{End: true}
	if err := q.run(); err != nil {
		last.Failed = err.Error()
		last.Ended = errors.Is(err, proc.ErrEnded) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	if err := last.send(-1); err != nil {
		return 1
	}
	return 0
}

func (a answer) send(fd int) error {
	a.Failed = a.Failed[:min(len(a.Failed), maxReason)]
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return disposable.Send(disposable.SocketFD, data, fd)
}

func (q request) run() error {
	p, err := q.Process.Open()
	if err != nil {
		return err
	}
	defer p.Close()
	return mount.InNamespace(p, func(in *mount.Inside) error {
		return errors.Join(q.open(in), q.detach(in), q.attach(in))
	})
}

func (q request) open(in *mount.Inside) error {
	opened := map[lxcfs.Device]bool{}
	for n, b := range q.Open {
		if opened[b.Device] || len(opened) == maxServers {
			continue
		}
		f, err := in.OpenMount(b.Name, b.ID)
		if err != nil {
			continue // covered; another file of the server may not be
		}
		opened[b.Device] = true
		if err := errors.Join(answer{Entry: n}.send(int(f.Fd())), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (q request) detach(in *mount.Inside) error {
	for n, b := range q.Detach {
		a := answer{Entry: n}
		switch err := in.DetachMount(b.Name, b.ID); {
		case err == nil:
		case errors.Is(err, mount.ErrNotThere), errors.Is(err, fs.ErrNotExist):
			a.Left = true
		default:
			a.Failed = err.Error()
		}
		if err := a.send(-1); err != nil {
			return err
		}
	}
	return nil
}

func (q request) attach(in *mount.Inside) error {
	for n, name := range q.Attach {
		a, fresh := answer{Entry: n}, os.NewFile(uintptr(disposable.FirstFD+n), name)
		err := in.Attach(fresh, name, mount.Target{Magic: []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC}})
		switch {
		case err == nil:
		case errors.Is(err, mount.ErrMounted), errors.Is(err, mount.ErrWrongFileSystem), errors.Is(err, fs.ErrNotExist):
			a.Left = true // or the kernel has no such file
		default:
			a.Failed = err.Error()
		}
		if err := errors.Join(a.send(-1), fresh.Close()); err != nil {
			return err
		}
	}
	return nil
}
