// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// Options say what to live through.
type Options struct {
	Seed    uint64
	From, N int // the numbers of the lives
	AtOnce  int
	// Peer is to use containerd's own shim.
	Peer bool
	// Log is a file that gets what containerd and the shims say, if it is not empty.
	Log string
	// Verbose is to print each life.
	Verbose bool
}

// Of what the machine has.
const (
	lxcfsPeer = peer.Lxcfs6
	runSize   = 32 << 20
)

// settleTime is how long something may take to go away: a shim that gets no container ends
// after 30 s, and containerd gives a shim 5 s to clean up.
const settleTime = 40 * time.Second

// last moves ids on disk: it forgets what was moved for root file systems that are gone.
var last = Life{Index: -1, Kind: Plain, Chown: true}

// machine is a containerd with what the faults hit.
type machine struct {
	node       *rig.Node
	ctr        []string // the command that reaches it
	isolatectl string
	isolate    bool
	shim       string
	image      string
	runtimes   map[bool]string // crun or not: the wrapped program
	faults     string          // the directory that says what they are to do
	wide       bool            // this batch has a fault that hits all lives

	daemons sync.Mutex // guards containerd
	files   sync.Mutex // guards lxcfs
	lxcfs   *rig.Lxcfs
}

// Live lives through containers inside a rig and prints what is wrong as it happens.
func Live(ctx context.Context, opts Options, w io.Writer) (report *Report, err error) {
	m, err := newMachine(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close(opts.Log)) }()
	report = &Report{Shim: m.shim, Seed: opts.Seed}
	// What is made once is there afterwards.
	for _, crun := range []bool{false, true} {
		for _, l := range []Life{{Kind: Plain}, {Kind: Pod}, last} {
			l.Index, l.Crun = -1, crun
			if failed := m.again(ctx, l); len(failed) > 0 {
				return nil, fmt.Errorf("an ordinary container fails: %q", failed)
			}
		}
	}
	first, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	report.Daemons = append(report.Daemons, use("containerd at first", m.node.Pid()))
	before, started := first, time.Now()
	for from := opts.From; from < opts.From+opts.N; {
		end := min(from+opts.AtOnce, opts.From+opts.N)
		var lives []Life
		for i := from; i < end; i++ {
			lives = append(lives, Plan(opts.Seed, i))
			if opts.Verbose {
				fmt.Fprintln(w, lives[len(lives)-1])
			}
		}
		outcomes, left, now, err := m.batch(ctx, lives, before)
		if err != nil {
			return report, fmt.Errorf("lives %d to %d: %w", from, end-1, err)
		}
		told := len(report.Complaints)
		report.Add(outcomes, left)
		for _, text := range report.Complaints[told:] {
			fmt.Fprintln(w, text)
		}
		before, from = now, end
		if from/64 != (end-len(lives))/64 {
			fmt.Fprintf(w, "%d lives, %v\n", from-opts.From, time.Since(started).Round(time.Second))
		}
	}
	report.Took = time.Since(started)
	var failed []string
	rig.Within(settleTime, func() bool {
		// The state of moved ids goes with the next container whose ids are moved after
		// containerd has removed the snapshot.
		if failed = m.again(ctx, last); len(failed) > 0 {
			return true
		}
		if before, err = m.look(ctx); err == nil {
			report.End = Compare(first, before)
		}
		return err == nil && len(Counts(report.End, Shims)) == 0
	})
	if len(failed) > 0 {
		return report, fmt.Errorf("an ordinary container fails at last: %q", failed)
	}
	if err != nil {
		return report, err
	}
	report.Daemons = append(report.Daemons, use("containerd at last", m.node.Pid()))
	return report, nil
}

// batch lives through lives at once, and returns what became of them, what is left
// and the inventory afterwards.
func (m *machine) batch(ctx context.Context, lives []Life, before Inventory) ([]Outcome, []Left, Inventory, error) {
	m.wide = slices.ContainsFunc(lives, func(l Life) bool {
		return slices.ContainsFunc(l.Faults, func(f Fault) bool { return f.Name.Wide() && m.can(f) })
	})
	outcomes, errs := make([]Outcome, len(lives)), make([]error, len(lives)+1)
	each := func(do func(i int)) {
		var all sync.WaitGroup
		for i := range lives {
			all.Go(func() { do(i) })
		}
		all.Wait()
	}
	tending, done := context.WithCancel(ctx)
	var tender sync.WaitGroup
	tender.Go(func() { errs[len(lives)] = m.tend(tending) })
	each(func(i int) { outcomes[i], errs[i] = m.live(ctx, lives[i]) })
	if err := errors.Join(errs[:len(lives)]...); err != nil {
		done()
		tender.Wait()
		return nil, nil, nil, err
	}
	each(func(i int) {
		outcomes[i].Hung = append(outcomes[i].Hung, m.remove(ctx, lives[i])...)
		var hit []Name
		hit, errs[i] = m.disarm(lives[i])
		outcomes[i].Hit = append(outcomes[i].Hit, hit...)
	})
	done()
	tender.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, nil, nil, err
	}
	each(func(i int) {
		if outcomes[i].Unusable = m.again(ctx, lives[i]); len(outcomes[i].Unusable) > 0 {
			outcomes[i].Hung = append(outcomes[i].Hung, m.remove(ctx, lives[i])...)
		}
		if m.wide {
			outcomes[i].Failed = nil
		}
	})
	var now Inventory
	var left []Left
	var err error
	rig.Within(settleTime, func() bool {
		if now, err = m.look(ctx); err == nil {
			left = slices.DeleteFunc(Compare(before, now), func(l Left) bool { return l.Kind == movedKind })
		}
		return err == nil && len(Counts(left, Shims)) == 0
	})
	return outcomes, left, now, err
}

// settings are what isolate is configured with for each way to run a container.
func settings(program string, chown bool) string {
	method := "auto"
	if chown {
		method = "chown"
	}
	return fmt.Sprintf("%s[runtime]\nbinary = %q\n[rootfs]\nmethod = %q\n", groups, program, method)
}

// groups lets clients say which shim a container is in.
const groups = "[annotations]\nallow = [\"io.containerd.runc.v2.group\"]\n"

func newMachine(ctx context.Context, opts Options) (*machine, error) {
	built, err := rig.Built(ctx)
	if err != nil {
		return nil, err
	}
	m := &machine{
		isolatectl: built["isolatectl"], isolate: !opts.Peer, shim: rig.Shim, runtimes: map[bool]string{}, faults: filepath.Join(rig.Dir(), "faults"),
	}
	if opts.Peer {
		m.shim = "io.containerd.runc.v2"
	}
	if err := errors.Join(
		os.Mkdir(m.faults, 0o755), os.Mkdir(runDir, 0o711), rig.WriteConfig(groups),
		unix.Mount("isolate", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0711,size=%d", runSize)),
	); err != nil {
		return nil, fmt.Errorf("prepare machine: %w", err)
	}
	for crun, name := range map[bool]peer.Name{false: peer.Runc15, true: peer.Crun121} {
		p, err := peer.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		m.runtimes[crun] = filepath.Join(rig.Dir(), "soak-"+string(name))
		if err := testprogram.Write(m.runtimes[crun], wrapped(m.faults, p.Program(p.Programs()[0]))); err != nil {
			return nil, err
		}
		for chown, name := range map[bool]string{false: ".toml", true: ".chown.toml"} {
			if err := os.WriteFile(m.runtimes[crun]+name, []byte(settings(m.runtimes[crun], chown)), 0o644); err != nil {
				return nil, fmt.Errorf("prepare machine: %w", err)
			}
		}
	}
	if m.lxcfs, err = rig.StartLxcfs(ctx, lxcfsPeer, ""); err != nil {
		return nil, err
	}
	if m.node, err = rig.StartContainerd(ctx, rig.Config{Isolate: true, Programs: map[string]string{"runc": m.runtimes[false]}}); err != nil {
		return nil, errors.Join(err, m.lxcfs.Close())
	}
	m.ctr = m.node.Ctr(ctx, "version").Argv[:3]
	if m.image, err = m.node.Import(ctx, image.Demo); err == nil {
		_, err = m.node.ImportInto(ctx, "k8s.io", image.Demo)
	}
	if err := errors.Join(err, m.namePid()); err != nil {
		return nil, errors.Join(err, m.close(""))
	}
	return m, nil
}

// close ends the daemons; what is in the rig ends with it.
func (m *machine) close(log string) error {
	var err error
	if log != "" {
		var text []byte
		if text, err = os.ReadFile(m.node.Log); err == nil {
			err = os.WriteFile(log, text, 0o644)
		}
	}
	return errors.Join(err, m.node.Stop(), m.lxcfs.Close())
}
