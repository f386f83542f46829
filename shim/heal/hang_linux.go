// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/internal/linux/fusectl"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// hang is what a watch knows of servers that do not answer.
type hang struct {
	suspicion suspicion
	requests  []*fusectl.Requests // of the host's lxcfs
	states    []*os.File          // /proc/PID/stat of the servers
	delay     delay               // of the child that asked
	hangs     bool                // until a server answers
	devices   []lxcfs.Device      // those that did not answer; nil if they may do so now
	told      bool                // so much is logged
	silent    bool                // the lxcfs that has files to give did not answer
}

// connections are the FUSE connections of these lines of mountinfo.
func connections(lines []byte) (devices []lxcfs.Device) {
	for line := range bytes.Lines(lines) {
		fields := bytes.Fields(line)
		if len(fields) < 3 {
			continue
		}
		number, ok := strings.CutPrefix(string(fields[2]), "0:")
		n, err := strconv.ParseUint(number, 10, 32)
		device := lxcfs.Device{0, int(n)} //nolint:gosec // 32 bits
		if ok && err == nil && !slices.Contains(devices, device) {
			devices = append(devices, device)
		}
	}
	return devices
}

// open opens what tells of a hang of the host's lxcfs, once for many looks.
func (h *hang) open(servers []server) {
	for _, s := range servers {
		if f, err := os.Open(s.Path("stat")); err == nil { // else it has ended, which poll tells
			h.states = append(h.states, f)
		}
	}
	for _, device := range connections(lxcfsMounts()) {
		if r, err := fusectl.OpenRequests(uint32(device[1])); err == nil { // else only one that is stopped is found
			h.requests = append(h.requests, r)
		}
	}
}

func (h *hang) close() {
	for _, r := range h.requests {
		r.Close() //nolint:errcheck // it was only read
	}
	for _, f := range h.states {
		f.Close()
	}
	h.requests, h.states = nil, nil
}

// over notes that a server answers.
func (h *hang) over() {
	h.hangs, h.devices, h.told, h.silent, h.suspicion = false, nil, false, false, suspicion{}
}

// look looks for signs of a hang, or of its end, and tells whether to ask.
func (w *watch) look() bool {
	var seen sign
	var content [1024]byte
	for _, f := range w.hang.states {
		n, err := f.ReadAt(content[:], 0)
		if err != nil && !errors.Is(err, io.EOF) {
			continue // it has ended, which poll tells
		}
		stat, err := proc.ParseStat(content[:n])
		// 'Z' is one that has ended but for a thread that is stuck.
		seen.stopped = seen.stopped || err == nil && (stat.State == 'T' || stat.State == 'Z')
	}
	for _, r := range w.hang.requests {
		n, err := r.Waiting()
		seen.waiting = seen.waiting || err == nil && n > 0
	}
	return w.hang.suspicion.look(seen, w.hang.hangs)
}

// looks tells whether it is of use to look for signs: a container has files, or had
// before their server hung.
func (w *watch) looks(containers []*watched) bool {
	return len(w.hang.states)+len(w.hang.requests) > 0 &&
		(w.hang.hangs || slices.ContainsFunc(containers, func(c *watched) bool { return !c.lacking() }))
}

// suspect asks the servers of the containers' files. The files of one that does not
// answer are taken away like those of a dead one, so that who reads them from then on
// does not wait.
func (w *watch) suspect(ctx context.Context, containers []*watched) {
	if w.hang.hangs { // it seems to answer again
		w.hang.devices = nil
		lacking := false
		for _, c := range containers {
			c.stale, lacking = true, lacking || c.lacking()
		}
		if !lacking {
			w.hang.over()
		}
		return
	}
	for device, v := range w.ask(ctx, containers) {
		if v == dead {
			w.changed(containers)
			return
		}
		if v == hung {
			w.hang.hangs, w.hang.devices = true, append(w.hang.devices, device)
		}
	}
	if !w.hang.hangs {
		return
	}
	w.reconcile(ctx, containers)
	w.abort(ctx, containers, w.hang.devices)
}

// ask asks each of the host's lxcfs of which a container has files, once, in a child.
func (w *watch) ask(ctx context.Context, containers []*watched) map[lxcfs.Device]verdict {
	verdicts := map[lxcfs.Device]verdict{}
	if !w.hang.delay.over() {
		return verdicts
	}
	host := connections(lxcfsMounts())
	for _, c := range containers {
		if !c.delay.over() {
			continue
		}
		_, mounted, err := observe(c.Init)
		if err != nil && !errors.Is(err, mount.ErrSlowTable) {
			continue
		}
		mounted = slices.DeleteFunc(mounted, func(m lxcfs.MountedFile) bool {
			// A container can have a server of its own that never answers.
			return verdicts[m.Device] != 0 || m.Device != c.Device && !slices.Contains(host, m.Device)
		})
		asker := &watched{Container: c.Container, delay: w.hang.delay}
		asker.LXCFS.TimeoutMS = max(asker.LXCFS.TimeoutMS, uint32(leastHang/time.Millisecond))
		in := inside{container: asker, process: c.Init.ID()}
		if err := in.ask(ctx, mounted, verdicts); err != nil && !ended(err) {
			log.G(ctx).WithError(err).WithField("id", c.ID).Debug("isolate: lxcfs could not be asked")
		}
		if w.hang.delay = asker.delay; !w.hang.delay.over() {
			break // at most one child waits
		}
	}
	return verdicts
}

// abort ends connections that hang, if a container allows it, which frees who waits for
// them. The servers end then, as soon as they run.
func (w *watch) abort(ctx context.Context, containers []*watched, devices []lxcfs.Device) {
	if len(devices) == 0 || !slices.ContainsFunc(containers, func(c *watched) bool { return c.LXCFS.AbortHung }) {
		return
	}
	aborted, err := fusectl.Abort(func(c fusectl.Connection) bool {
		return c.Owner == 0 && c.Waiting > 0 && slices.Contains(devices, lxcfs.Device{0, int(c.Device)})
	})
	if err != nil {
		log.G(ctx).WithError(err).Warn("isolate: the connection of lxcfs could not be ended (lxcfs.abort_hung)")
	}
	if len(aborted) > 0 {
		log.G(ctx).WithField("connections", fmt.Sprint(aborted)).Warn("isolate: the connection of lxcfs was ended, so that nobody waits for it; start lxcfs again (lxcfs.abort_hung)")
	}
}
