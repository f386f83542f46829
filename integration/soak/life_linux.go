// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isolate-shim/isolate/integration/rig"
)

// How long a client waits for an answer before it is a hang, where nothing is wrong,
// and how long it may take to get rid of a container after everything.
const (
	answerPatience = 60 * time.Second
	removePatience = 60 * time.Second
)

// live lets a client do what is planned, while faults hit it.
func (m *machine) live(ctx context.Context, l Life) (Outcome, error) {
	o := Outcome{Life: l}
	var faults sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	inject := func(f Fault) {
		time.Sleep(f.After)
		hit, err := m.inject(ctx, l, f)
		mu.Lock()
		defer mu.Unlock()
		if hit {
			o.Hit = append(o.Hit, f.Name)
		}
		errs = append(errs, err)
	}
	for _, f := range l.Faults {
		if f.Verb != "" && m.can(f) {
			errs = append(errs, m.arm(l, f))
		}
	}
	for i, step := range l.Steps {
		for _, f := range l.Faults {
			if f.Verb == "" && f.Step == i && m.can(f) {
				faults.Go(func() { inject(f) })
			}
		}
		text, hung := m.step(ctx, l, i, step)
		switch {
		case hung:
			o.Hung = append(o.Hung, fmt.Sprintf("step %d: %s", i, text))
		case text != "" && len(l.Faults) == 0:
			o.Failed = append(o.Failed, fmt.Sprintf("step %d: %s", i, text))
		}
		if len(o.Hung)+len(o.Failed) > 0 {
			break // the rest would fail too
		}
	}
	faults.Wait()
	return o, errors.Join(append(errs, m.calm(l))...)
}

// can tells whether a fault means something to the shim.
func (m *machine) can(f Fault) bool { return m.isolate || !f.Name.Ours() }

// step does one thing, and returns what went wrong. A client that knows that something
// is wrong leaves after a while; it is a hang if nothing is.
func (m *machine) step(ctx context.Context, l Life, i int, s Step) (failed string, hung bool) {
	wait := answerPatience
	if len(l.Faults) > 0 || m.wide {
		wait = l.Leave
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	text, err := m.client(ctx, l, m.argv(ctx, l, i, s))
	switch {
	case err == nil:
		return "", false
	case ctx.Err() != nil:
		return text, len(l.Faults) == 0 && !m.wide
	case s.Do == Remove && strings.Contains(text, "137"):
		return "", false // how the task has ended
	}
	return fmt.Sprintf("%s: %v: %s", s.Do, err, text), false
}

// client runs ctr. It can be killed at any time.
func (m *machine) client(ctx context.Context, l Life, args []string) (string, error) {
	argv := slices.Concat(m.ctr, []string{"--namespace", l.Namespace()}, args)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var output bytes.Buffer
	command.Stdout, command.Stderr, command.WaitDelay = &output, &output, time.Second
	if err := command.Start(); err != nil {
		return "", err
	}
	err := os.WriteFile(m.clientFile(l), fmt.Append(nil, command.Process.Pid), 0o644)
	err = errors.Join(err, command.Wait())
	var text strings.Builder
	for line := range strings.Lines(output.String()) {
		if !strings.Contains(line, "level=warning") {
			text.WriteString(line)
		}
	}
	return strings.TrimSpace(text.String()), err
}

// clientFile tells the wrapped runtimes who the client of a life is.
func (m *machine) clientFile(l Life) string { return filepath.Join(m.faults, "client-"+l.Mark()) }

// nest is what nested containers do: namespaces, mounts and another root.
const nest = "unshare -Urm sh -c 'mount -t tmpfs t /mnt && mkdir /mnt/old && cd /mnt && pivot_root . old && :'"

// argv is what ctr is asked for a step.
func (m *machine) argv(ctx context.Context, l Life, i int, s Step) []string {
	id := l.ID(s.Container)
	run := []string{"tasks", "exec", "--exec-id", fmt.Sprintf("e%d", i), id}
	switch s.Do {
	case Run:
		argv := slices.Concat([]string{"run"}, m.runtime(l))
		argv = append(argv, m.flags(ctx, l, s.Container)...)
		if l.Kind == Once {
			return append(argv, "--rm", m.image, id, "sh", "-c", "echo here; exec sleep 0.1")
		}
		return append(argv, "--detach", m.image, id, "sleep", "86400")
	case Start:
		argv := []string{"tasks", "start", "--detach"}
		if l.NullIO {
			argv = append(argv, "--null-io")
		}
		return append(argv, id)
	case Exec:
		return append(run, "true")
	case Inside:
		return append(run, "sh", "-c", nest)
	case Term:
		return []string{"tasks", "kill", "--signal", "SIGTERM", id}
	case Kill:
		return []string{"tasks", "kill", "--signal", "SIGKILL", id}
	case Remove:
		return []string{"tasks", "rm", "--force", id}
	case Pause, Resume, Metrics:
		return []string{"tasks", string(s.Do), id}
	}
	panic("no step " + string(s.Do))
}

// runtime are the flags that choose the shim and how it runs the containers of a life.
func (m *machine) runtime(l Life) []string {
	program := m.runtimes[l.Crun]
	switch {
	case !m.isolate:
		return []string{"--runtime", m.shim, "--runc-binary", program}
	case l.Kind == Adopted: // for which ctr wants options of runc
		return []string{"--runtime", m.shim}
	case l.Chown:
		return []string{"--runtime", m.shim, "--runtime-config-path", program + ".chown.toml"}
	}
	return []string{"--runtime", m.shim, "--runtime-config-path", program + ".toml"}
}

// flags are those of a kind of life.
func (m *machine) flags(ctx context.Context, l Life, container string) []string {
	flags := []string{"--memory-limit", "268435456"}
	if l.NullIO {
		flags = append(flags, "--null-io")
	}
	switch l.Kind {
	case Once, Plain, Restart, Nested:
	case Group:
		flags = append(flags, "--annotation", "io.containerd.runc.v2.group="+l.ID("a"))
	case Pod:
		kind := "sandbox"
		if container != "a" {
			kind = "container"
			if pid := m.pid(ctx, l, l.ID("a")); pid != "" {
				flags = append(flags, "--with-ns", "network:/proc/"+pid+"/ns/net")
			}
		}
		flags = append(flags, "--annotation", "io.kubernetes.cri.sandbox-id="+l.ID("a"), "--annotation", "io.kubernetes.cri.container-type="+kind)
	case Adopted:
		ids := fmt.Sprintf("0:%d:65536", 200000+l.Index%64*65536)
		flags = append(flags, "--uidmap", ids, "--gidmap", ids, "--remap-labels")
	}
	return flags
}

// pid is the first process of a container as containerd tells it, or "".
func (m *machine) pid(ctx context.Context, l Life, id string) string {
	argv := slices.Concat(m.ctr, []string{"--namespace", l.Namespace(), "tasks", "ls"})
	for line := range strings.Lines(rig.Exec(ctx, argv...).Stdout) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			return fields[1]
		}
	}
	return ""
}

// remove removes a life's containers, as a client does who insists, and tells what
// took too long. A task whose container is gone already, which ctr run --rm leaves if
// it cannot delete the task, is reached by a container of that name.
func (m *machine) remove(ctx context.Context, l Life) []string {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	var hung []string
	for _, c := range slices.Backward(l.Containers()) {
		id := l.ID(c)
		made := false
		for {
			task, taskErr := m.client(ctx, l, []string{"tasks", "rm", "--force", id})
			if strings.Contains(task, "container") && strings.Contains(task, "not found") && !made {
				made = true
				_, _ = m.client(ctx, l, slices.Concat([]string{"containers", "create"}, m.runtime(l), []string{m.image, id}))
				continue
			}
			text, err := m.client(ctx, l, []string{"containers", "rm", id})
			if err == nil || strings.Contains(text, "not found") {
				break
			}
			if ctx.Err() != nil {
				hung = append(hung, fmt.Sprintf("%s cannot be removed in %v: %s (%v); %s (%v)", id, removePatience, task, taskErr, text, err))
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		_, _ = m.client(ctx, l, []string{"snapshots", "rm", id}) // mostly it went with the container
	}
	return hung
}

// again uses the ids of a life once more, and tells why that cannot be. What is left of
// an earlier container may be in the way for as long as it may take to go away.
func (m *machine) again(ctx context.Context, l Life) []string {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	var unusable []string
	for _, c := range l.Containers() {
		id := l.ID(c)
		var text string
		var err error
		used := rig.Within(settleTime, func() bool {
			text, err = m.client(ctx, l, slices.Concat([]string{"run", "--rm", "--null-io"}, m.runtime(l), []string{m.image, id, "true"}))
			return err == nil
		})
		if !used {
			unusable = append(unusable, fmt.Sprintf("%s: %v: %s", id, err, text))
		}
	}
	return unusable
}
