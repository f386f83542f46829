// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// program is a part of the cluster that runs in the background.
type program struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// startProgram starts one. What it says goes to a file.
func startProgram(dir, path string, args ...string) (*program, error) {
	p := &program{name: filepath.Base(path), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	file, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, file, file
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its log says how it ended
		close(p.done)
	}()
	return p, nil
}

// kill ends it without warning.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// await waits until something holds, and fails early when the program ends.
func (p *program) await(what string, ready func() error) error {
	var err error
	ended := false
	ok := rig.Within(patience, func() bool {
		if err = ready(); err == nil {
			return true
		}
		select {
		case <-p.done:
			ended = true
		default:
		}
		return ended
	})
	switch {
	case ended:
		return fmt.Errorf("%s has ended:\n%s", p.name, p.tail(30))
	case !ok:
		return fmt.Errorf("%s: %s after %s: %w\n%s", p.name, what, patience, err, p.tail(30))
	}
	return nil
}

// tail is the end of its log.
func (p *program) tail(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
