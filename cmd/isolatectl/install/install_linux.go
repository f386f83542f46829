// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/shim/apparmor"
	"github.com/isolate-shim/isolate/shim/version"
)

// Install carries out a request, as far as that is not done already.
func Install(ctx context.Context, programs Programs, r Request) error {
	facts, err := look(ctx, programs, r)
	if err != nil {
		return err
	}
	plan, err := decide(facts, r)
	if err != nil {
		return err
	}
	plan.Isolate = version.String()
	for _, c := range plan.Changes {
		missing, err := missingDirs(c.Path)
		if err != nil {
			return err
		}
		plan.Directories = append(plan.Directories, missing...)
	}
	if r.DryRun {
		plan.print(r)
		if apparmor.Enabled() {
			r.Say("would load AppArmor profile %s", apparmor.Name)
		}
		return nil
	}

	own, err := missingDirs(filepath.Join(Dir, receiptName))
	if err != nil {
		return err
	}
	plan.Directories = append(own, plan.Directories...)
	receipt, locked, err := lockReceipt(Dir)
	if err != nil {
		return err
	}
	defer locked.Close()
	receipt = receipt.with(plan)
	receipt.AppArmor = receipt.AppArmor || apparmor.Enabled()
	if err := receipt.save(Dir); err != nil {
		return err
	}
	if err := plan.write(ctx, programs, facts, r); err != nil {
		return err
	}
	if err := loadProfile(ctx, r); err != nil {
		return err
	}
	if err := receipt.settled(plan).save(Dir); err != nil {
		return err
	}
	if err := plan.activate(ctx, facts, r); err != nil {
		return err
	}
	if r.Node == nil {
		return nil
	}
	if err := r.Node.setLabel(ctx, r.Label.Key, &r.Label.Value); err != nil {
		return err
	}
	r.Say("labelled node %s %s=%s", r.Node.Name, r.Label.Key, r.Label.Value)
	return nil
}

// look finds out what decide must know.
func look(ctx context.Context, programs Programs, r Request) (facts, error) {
	f := facts{Programs: map[string]string{}, Sums: map[string]string{}}
	var paths []string
	for name, data := range programs {
		f.Programs[name] = sumOf(data)
		paths = append(paths, filepath.Join(r.BinDir, name))
	}
	if r.Handler {
		c, err := lookAtContainerd(ctx, r.Address)
		if err != nil {
			return f, err
		}
		f.Containerd = &c
		file := host.NewFile(c.File, c.Format)
		if c.Main != nil {
			file = *c.Main
		}
		paths = append(paths, dropInPath(file))
	}
	for _, path := range paths {
		sum, err := sumAt(path)
		if err != nil {
			return f, err
		}
		f.Sums[path] = sum
	}
	return f, nil
}

func lookAtContainerd(ctx context.Context, address string) (containerdFacts, error) {
	var c containerdFacts
	var err error
	if c.Containerd, err = host.FindContainerd(ctx, address); err != nil {
		return c, err
	}
	if c.Effective, err = c.Dump(ctx); err != nil {
		return c, err
	}
	if c.Format = c.Effective.Version(); c.Format < 2 {
		return c, fmt.Errorf("containerd config dump: version %v is not understood", c.Effective["version"])
	}
	text, err := os.ReadFile(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read containerd's configuration: %w", err)
	}
	file, err := host.ParseFile(c.File, string(text))
	c.Main = &file
	return c, err
}

// write makes all changes. Those of containerd's configuration are taken back if
// they turn out to mean more than they should.
func (p plan) write(ctx context.Context, programs Programs, f facts, r Request) (retErr error) {
	for _, dir := range p.Directories {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	var undo []func() error
	defer func() {
		for _, f := range undo {
			if retErr != nil {
				retErr = errors.Join(retErr, f())
			}
		}
	}()
	for _, c := range p.Changes {
		if c.Same {
			r.Say("%s is in place", c.Path)
			continue
		}
		if !c.configuration() {
			if err := atomicfile.WriteDurably(c.Path, programs[c.Program], 0o755); err != nil {
				return err
			}
			r.Say("wrote %s", c.Path)
			continue
		}
		back, err := c.writeText()
		if err != nil {
			return err
		}
		undo = append(undo, back)
		r.Say("wrote %s", c.Path)
	}
	if len(undo) == 0 {
		return nil
	}
	after, err := f.Containerd.Dump(ctx)
	if err != nil {
		return fmt.Errorf("containerd does not read its configuration any more, so it was restored: %w", err)
	}
	if found, ok := after.Handler(host.HandlerName); !ok || found.Type != p.Expected.Type || found.Path != p.Expected.Path {
		return fmt.Errorf("containerd %s does not take the handler from an imported file, so that was removed: %s",
			f.Containerd.Version, byHand(f.main(), p.Expected))
	}
	if !f.Containerd.Effective.SameBut(after, host.HandlerName) {
		return fmt.Errorf("containerd %s drops other settings when it imports a file with a handler, so that was removed: %s",
			f.Containerd.Version, byHand(f.main(), p.Expected))
	}
	return nil
}

// main is the main configuration file, or what it will be.
func (f facts) main() host.File {
	if f.Containerd.Main != nil {
		return *f.Containerd.Main
	}
	return host.NewFile(f.Containerd.File, f.Containerd.Format)
}

// writeText writes a configuration file, and returns what puts it back as it was.
func (c change) writeText() (back func() error, err error) {
	path, before, mode, err := readThrough(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return removeFile(c.Path) }, atomicfile.WriteDurably(c.Path, []byte(c.Text), 0o644)
	}
	if err != nil {
		return nil, err
	}
	return func() error { return atomicfile.WriteDurably(path, []byte(before), mode) }, atomicfile.WriteDurably(path, []byte(c.Text), mode)
}

// activate makes containerd know the handler, and returns when it does.
func (p plan) activate(ctx context.Context, f facts, r Request) error {
	if f.Containerd == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	state, err := host.AskHandler(ctx, p.Address, host.HandlerName)
	if err != nil {
		return err
	}
	// containerd looks at the shim once, when it starts: it may not have been there.
	if !state.Known || p.changesConfiguration() || !state.UserNamespaces && p.changes() {
		if r.Restart == host.RestartNever {
			r.Say("containerd, process %d, has to be restarted to know the handler; containers go on meanwhile", f.Containerd.PID)
			return nil
		}
		r.Say("restarting containerd, process %d, by %s", f.Containerd.PID, r.Restart)
		if err := f.Containerd.Restart(ctx, r.Restart); err != nil {
			return err
		}
		if state, err = host.AwaitHandler(ctx, p.Address, host.HandlerName, true); err != nil {
			return err
		}
	}
	if !state.UserNamespaces {
		return fmt.Errorf("containerd knows the handler %s, and says that it has no user namespaces: restart it if the shim was not there when it started; isolatectl check tells the rest", host.HandlerName)
	}
	r.Say("containerd knows the handler %s, with user namespaces", host.HandlerName)
	return nil
}

// changes tells whether there is anything to write.
func (p plan) changes() bool {
	return slices.ContainsFunc(p.Changes, func(c change) bool { return !c.Same })
}

// changesConfiguration tells whether containerd has to read something new.
func (p plan) changesConfiguration() bool {
	return slices.ContainsFunc(p.Changes, func(c change) bool { return c.configuration() && !c.Same })
}

// print says what would be done.
func (p plan) print(r Request) {
	for _, d := range p.Directories {
		r.Say("would make %s", d)
	}
	for _, c := range p.Changes {
		switch {
		case c.Same:
			r.Say("%s is in place", c.Path)
		case c.Edit != nil && c.Edit.Was != "":
			r.Say("would change a line of %s: %s (was: %s)", c.Path, c.Edit.Line, c.Edit.Was)
		case c.Edit != nil:
			r.Say("would add a line to %s: %s", c.Path, c.Edit.Line)
		default:
			r.Say("would write %s", c.Path)
		}
	}
	if p.changesConfiguration() {
		r.Say("would need containerd restarted (--restart=%s)", r.Restart)
	}
	if p.Node != "" {
		r.Say("would label node %s %s=%s", p.Node, p.Label.Key, p.Label.Value)
	}
}
