// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
)

// facts is what decide must know of the host.
type facts struct {
	// Programs have the sums of the programs to install, by name.
	Programs map[string]string
	// Sums are those of the files that are there, by path: of all that could be
	// written.
	Sums map[string]string
	// Containerd is the one in question, nil if none is.
	Containerd *containerdFacts
}

// containerdFacts is what decide must know of containerd.
type containerdFacts struct {
	host.Containerd

	// Format is the newest version of the configuration format that it reads.
	Format int
	// Main is the main configuration file, nil if there is none.
	Main *host.File
}

// plan is what to do.
type plan struct {
	// Isolate is the version to install.
	Isolate string
	// Directories have to be made, parents first.
	Directories []string
	// Changes are what to write, in this order.
	Changes []change
	// Address is the socket of the containerd that is to know the handler, "" for none.
	Address string
	// Expected is the handler that it is to know.
	Expected host.Handler
	// Node gets the label, "" for none.
	Node  string
	Label Label
}

// change is a file to write.
type change struct {
	Path string
	Kind kind
	// Program is the name of the program to write there; else Text is written.
	Program string
	Text    string
	// Sum is the checksum of what is written.
	Sum string
	// Edit is set if the file is the administrator's and one line changes.
	Edit *host.Edit
	// Same tells that the file is there already.
	Same bool
}

// configuration tells whether containerd reads the file.
func (c change) configuration() bool { return c.Kind != program }

// decide says what has to be written for a request, or refuses with the reason
// and the fix.
func decide(f facts, r Request) (plan, error) {
	var p plan
	for _, name := range []string{host.ShimName, ctlName} {
		path := filepath.Join(r.BinDir, name)
		p.Changes = append(p.Changes, change{Path: path, Kind: program, Program: name, Sum: f.Programs[name]})
	}
	if r.Node != nil {
		p.Node, p.Label = r.Node.Name, r.Label
	}
	if f.Containerd != nil {
		p.Address = f.Containerd.Address
		if err := p.handler(f, *f.Containerd, r); err != nil {
			return p, err
		}
	}
	for i, c := range p.Changes {
		p.Changes[i].Same = f.Sums[c.Path] == c.Sum
	}
	return p, nil
}

// handler plans the configuration of containerd.
func (p *plan) handler(f facts, c containerdFacts, r Request) error {
	p.Expected = host.Handler{Name: host.HandlerName, Type: host.RuntimeType}
	if !slices.Contains(filepath.SplitList(c.Path), r.BinDir) && filepath.Dir(c.Exe) != r.BinDir {
		p.Expected.Path = filepath.Join(r.BinDir, host.ShimName) // containerd would not find it
	}
	file := host.NewFile(c.File, c.Format)
	if c.Main != nil {
		file = *c.Main
	}
	// A handler that the administrator configured is left alone.
	if found, ok := c.Effective.Handler(host.HandlerName); ok && f.Sums[dropInPath(file)] == "" {
		if found.Type != host.RuntimeType && filepath.Base(found.Path) != host.ShimName {
			return fmt.Errorf("containerd has a handler %q of type %q, which is another runtime: remove it from %s, or rename it", host.HandlerName, found.Type, c.File)
		}
		p.Expected = found
		return nil
	}
	switch {
	case c.Main == nil:
		p.Changes = append(p.Changes, change{Path: file.Name, Kind: mainFile, Text: file.Text, Sum: sumOf([]byte(file.Text))})
	case file.DropInDir() == "":
		if g, ok := file.Generator(); ok {
			return fmt.Errorf("%s writes %s anew whenever it starts, so that nothing can be added to it: %s", g.Name, file.Name, byHand(file, p.Expected))
		}
		edited, edit, err := file.WithImport()
		if errors.Is(err, host.ErrImports) {
			return fmt.Errorf("%w; or add these lines to it:\n\n%s", err, p.Expected.TOML(file.Version))
		}
		if err != nil {
			return err
		}
		file = edited
		p.Changes = append(p.Changes, change{Path: file.Name, Kind: mainFile, Text: file.Text, Sum: sumOf([]byte(file.Text)), Edit: &edit})
	}
	text := p.Expected.DropIn(file.Version)
	p.Changes = append(p.Changes, change{Path: dropInPath(file), Kind: dropIn, Text: text, Sum: sumOf([]byte(text))})
	return nil
}

// byHand says how the administrator adds a handler.
func byHand(file host.File, h host.Handler) string {
	lines := h.TOML(file.Version)
	g, ok := file.Generator()
	switch {
	case !ok:
		return fmt.Sprintf("add these lines to %s and run this again:\n\n%s", file.Name, lines)
	case g.Head == "":
		return fmt.Sprintf("add these lines to %s, %s, and run this again:\n\n%s", g.Source, g.Restart, lines)
	}
	return fmt.Sprintf("add these lines to %s (the first if it is a new file), %s, and run this again:\n\n%s\n%s", g.Source, g.Restart, g.Head, lines)
}

// dropInPath is where the handler goes, beside a main file that imports it or
// will do so.
func dropInPath(file host.File) string {
	dir := file.DropInDir()
	if dir == "" {
		dir = filepath.Dir(host.DropIns)
	}
	return filepath.Join(dir, "isolate.toml")
}

// configures tells whether the plan makes containerd know the handler, and does
// not leave that to what the administrator has written.
func (p plan) configures() bool { return slices.ContainsFunc(p.Changes, change.configuration) }
