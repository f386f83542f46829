// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
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

// request is what a child does in the mount namespace of a process.
type request struct {
	Process proc.ID `json:"process"`
	// Mounted are files of lxcfs, the topmost of a place last. Their servers are asked,
	// and have that long to answer. The files of dead ones are detached.
	Mounted  []lxcfs.MountedFile `json:"mounted,omitempty"`
	Patience time.Duration       `json:"patience,omitempty"`
	// Ended is a server whose process has ended. Its files are detached also if it does not
	// answer: somebody else may hold what connects it with the kernel.
	Ended lxcfs.Device `json:"ended"`
	// Hung are servers that did not answer before. They are not asked, and their files
	// are detached.
	Hung []lxcfs.Device `json:"hung,omitempty"`
	// Leave says to detach nothing.
	Leave bool `json:"leave,omitempty"`
	// Attach has the places of the files that the child was given.
	Attach []string `json:"attach,omitempty"`
}

// answer tells of one entry of a list.
type answer struct {
	Entry int `json:"entry"`
	// Verdict is set if it is about the server of the file.
	Verdict verdict `json:"verdict,omitempty"`
	// Left means that the entry was left alone, because of what the container has done.
	Left bool `json:"left,omitempty"`
	// Gone means that the server of a file to attach has died meanwhile.
	Gone   bool   `json:"gone,omitempty"`
	Failed string `json:"failed,omitempty"`
	// End is set in the last answer; then Ended tells that there is no such process.
	End   bool `json:"end,omitempty"`
	Ended bool `json:"ended,omitempty"`
}

// verdict is what became of asking a server.
type verdict int

const (
	alive verdict = iota + 1 // it answered, whatever it said
	dead
	hung // it did not answer in time
)

// Bounds of what a child sends, and of the servers that it asks.
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
	if err := last.send(); err != nil {
		return 1
	}
	return 0
}

func (a answer) send() error {
	a.Failed = a.Failed[:min(len(a.Failed), maxReason)]
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return disposable.Send(disposable.SocketFD, data, -1)
}

func (q request) run() error {
	p, err := q.Process.Open()
	if err != nil {
		return err
	}
	defer p.Close()
	return mount.InNamespace(p, func(in *mount.Inside) error {
		verdicts, err := q.ask(in)
		if err != nil || q.Leave {
			return err
		}
		return errors.Join(q.detach(in, verdicts), q.attach(in))
	})
}

// ask asks the servers of the mounted files, all at once. A server that does not answer
// keeps a thread of this process.
func (q request) ask(in *mount.Inside) (map[lxcfs.Device]verdict, error) {
	type asked struct {
		entry   int
		verdict verdict
	}
	answers := make(chan asked, maxServers)
	pending := map[int]bool{}
	verdicts := map[lxcfs.Device]verdict{}
	for n, m := range q.Mounted {
		if verdicts[m.Device] != 0 || slices.Contains(q.Hung, m.Device) || len(pending) == maxServers {
			continue
		}
		f, err := in.OpenMount(m.Name, m.ID)
		if err != nil {
			continue // covered; another file of the server may not be
		}
		verdicts[m.Device], pending[n] = hung, true
		go func() {
			v := alive
			if lxcfs.IsDead(lxcfs.Ask(f)) {
				v = dead
			}
			answers <- asked{n, v}
		}()
	}
	late := time.After(q.Patience)
	for len(pending) > 0 {
		select {
		case a := <-answers:
			delete(pending, a.entry)
			verdicts[q.Mounted[a.entry].Device] = a.verdict
			if err := (answer{Entry: a.entry, Verdict: a.verdict}).send(); err != nil {
				return nil, err
			}
		case <-late:
			for n := range pending {
				if err := (answer{Entry: n, Verdict: hung}).send(); err != nil {
					return nil, err
				}
				if device := q.Mounted[n].Device; device == q.Ended {
					verdicts[device] = dead
				}
			}
			return verdicts, nil
		}
	}
	return verdicts, nil
}

func (q request) detach(in *mount.Inside, verdicts map[lxcfs.Device]verdict) error {
	for n, m := range slices.Backward(q.Mounted) {
		if verdicts[m.Device] != dead && !slices.Contains(q.Hung, m.Device) {
			continue
		}
		a := answer{Entry: n}
		switch err := in.DetachMount(m.Name, m.ID); {
		case err == nil:
		case errors.Is(err, mount.ErrNotThere), errors.Is(err, fs.ErrNotExist):
			a.Left = true
		default:
			a.Failed = err.Error()
		}
		if err := a.send(); err != nil {
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
		case errors.Is(err, mount.ErrDeleted):
			a.Gone = true
		case errors.Is(err, mount.ErrMounted), errors.Is(err, mount.ErrWrongFileSystem), errors.Is(err, fs.ErrNotExist):
			a.Left = true // or the kernel has no such file
		default:
			a.Failed = err.Error()
		}
		if err := errors.Join(a.send(), fresh.Close()); err != nil {
			return err
		}
	}
	return nil
}
