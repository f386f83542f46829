// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
)

var (
	// errDisabled means that the kernel runs without AppArmor.
	errDisabled = errors.New("this kernel runs without AppArmor, and containers need no profile")
	// ErrNoParser means that the host lacks AppArmor's programs.
	ErrNoParser = errors.New("AppArmor is on and apparmor_parser is not installed: install the package apparmor")
	// ErrInUse means that processes run under the profile, so that it stays in the
	// kernel: to remove it would set them free.
	ErrInUse = errors.New("processes run under it: it stays in the kernel until the next boot")
)

// parserLimit is for compiling, which takes some 20 ms, on a machine that does a
// hundred other things.
const parserLimit = time.Minute

// Text is the profile as this host's parser understands it.
func Text(ctx context.Context) (string, error) {
	program, err := findParser()
	if err != nil {
		return "", err
	}
	return parser(program).text(ctx)
}

// Load writes the profile to [File] and loads it, in the place of one that is
// loaded already: processes under that are under the new one at once.
func Load(ctx context.Context) error {
	if !Enabled() {
		return errDisabled
	}
	program, err := findParser()
	if err != nil {
		return err
	}
	policy, err := parser(program).text(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(File), 0o755); err != nil {
		return fmt.Errorf("write AppArmor profile: %w", err)
	}
	if err := atomicfile.Write(File, []byte(policy), 0o644); err != nil {
		return err
	}
	// A cached policy may be one that another parser made of the same text.
	return parser(program).run(ctx, "", "--skip-cache", "--replace", File)
}

// Unload removes the profile from the host, and from the kernel unless the error is
// [ErrInUse]. It does nothing where it is not.
func Unload(ctx context.Context) error {
	if err := os.Remove(File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove AppArmor profile: %w", err)
	}
	if !Enabled() {
		return nil
	}
	loaded, err := Loaded()
	if err != nil || !loaded {
		return err
	}
	used, err := inUse("/proc")
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("AppArmor profile %s: %w", Name, ErrInUse)
	}
	program, err := findParser()
	if err != nil {
		return err
	}
	return parser(program).run(ctx, "profile "+Name+" {}", "--remove")
}

// inUse tells whether a process runs under the profile, in whatever mode.
func inUse(proc string) (bool, error) {
	labels, err := filepath.Glob(filepath.Join(proc, "[0-9]*/attr/current"))
	if err != nil {
		return false, fmt.Errorf("find processes under AppArmor profile %s: %w", Name, err)
	}
	for _, file := range labels {
		label, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		name, _, _ := strings.Cut(string(label), " (")
		if name == Name {
			return true, nil
		}
	}
	return false, nil
}

// parser is the path of an apparmor_parser.
type parser string

func findParser() (string, error) {
	for _, name := range []string{"apparmor_parser", "/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", ErrNoParser
}

func (p parser) text(ctx context.Context) (string, error) {
	return text(func(rule string) (bool, error) { return p.knows(ctx, rule) })
}

// knows tells whether the parser compiles a rule. A parser that does not compile
// what every one does is an error.
func (p parser) knows(ctx context.Context, rule string) (bool, error) {
	try := func(rule string) error {
		return p.run(ctx, "profile isolate-try {\n"+rule+"\n}", "--skip-kernel-load", "--skip-cache")
	}
	if try(rule) == nil {
		return true, nil
	}
	return false, try("file,")
}

// run runs the parser on a policy, or on the files that the arguments name.
func (p parser) run(ctx context.Context, policy string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, parserLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(p), args...)
	cmd.Stdin = strings.NewReader(policy)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", p, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
