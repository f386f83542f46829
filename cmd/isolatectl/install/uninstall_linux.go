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
	"strings"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/shim/apparmor"
	"github.com/isolate-shim/isolate/shim/record"
)

// Uninstall undoes what the receipt names, in the order in which nothing new can
// begin to use it: the label, containerd's handler, the programs.
func Uninstall(ctx context.Context, r Request) error {
	if _, err := os.Stat(filepath.Join(Dir, receiptName)); errors.Is(err, fs.ErrNotExist) {
		r.Say("nothing to undo: there is no %s", filepath.Join(Dir, receiptName))
		return removeLabel(ctx, receipt{}, r)
	}
	receipt, locked, err := lockReceipt(Dir)
	if err != nil {
		return err
	}
	defer locked.Close()
	if err := removeLabel(ctx, receipt, r); err != nil {
		return err
	}
	if err := unused(ctx, receipt, r); err != nil {
		return err
	}
	if err := receipt.unchanged(); err != nil && !r.Force {
		return err
	}
	if r.DryRun {
		for _, f := range receipt.Files {
			r.Say("would remove %s", f.Path)
		}
		if receipt.AppArmor {
			r.Say("would remove AppArmor profile %s", apparmor.Name)
		}
		return nil
	}
	if receipt.Address != "" {
		if err := receipt.deactivate(ctx, r); err != nil {
			return err
		}
	}
	for _, f := range receipt.Files {
		if f.Kind != program {
			continue
		}
		if err := removeFile(f.Path); err != nil {
			return err
		}
		r.Say("removed %s", f.Path)
	}
	if receipt.AppArmor {
		if err := unloadProfile(ctx, r); err != nil {
			return err
		}
	}
	for _, d := range slices.Backward(receipt.Directories) {
		_ = os.Remove(d) // unless something else is in there
	}
	if err := removeFile(filepath.Join(Dir, receiptName)); err != nil {
		return err
	}
	if slices.Contains(receipt.Directories, Dir) {
		_ = os.Remove(Dir) // likewise
	}
	return nil
}

// removeLabel keeps new pods away.
func removeLabel(ctx context.Context, receipt receipt, r Request) error {
	label := r.Label
	if receipt.Label != nil {
		label = *receipt.Label
	}
	switch {
	case r.Node == nil && receipt.Node != "":
		r.Say("node %s keeps its label: kubectl label node %s %s-", receipt.Node, receipt.Node, label.Key)
	case r.Node == nil:
	case r.DryRun:
		r.Say("would remove label %s from node %s", label.Key, r.Node.Name)
	default:
		if err := r.Node.setLabel(ctx, label.Key, nil); err != nil {
			return err
		}
		r.Say("removed label %s from node %s", label.Key, r.Node.Name)
	}
	return nil
}

// unused refuses while containers are there that the shim has to clean up after.
func unused(ctx context.Context, receipt receipt, r Request) error {
	records, err := record.List()
	if err != nil && !r.Force {
		return fmt.Errorf("list containers: %w", err)
	}
	if len(records) == 0 {
		return nil
	}
	var pods map[string]string
	if receipt.Address != "" {
		// Names make the message better, and are no reason to fail.
		pods, _ = host.Pods(ctx, receipt.Address)
	}
	var names []string
	for _, c := range records {
		name := pods[c.ID]
		if name == "" {
			name = c.Namespace + "/" + c.ID
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if r.Force {
		r.Say("these keep running without a shim on the disk to clean up after them: %s", strings.Join(names, ", "))
		return nil
	}
	return fmt.Errorf("containers of isolate are still there: %s: remove them and run this again, or use --force", strings.Join(names, ", "))
}

// unchanged fails if a file is not what was installed.
func (r receipt) unchanged() error {
	var errs []error
	for _, f := range r.Files {
		sum, err := sumAt(f.Path)
		if err == nil && sum != "" && !slices.Contains(f.Sums, sum) {
			err = fmt.Errorf("%s is not as it was installed: remove it by hand and run this again, or use --force", f.Path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// deactivate makes containerd forget the handler, and returns when it has.
func (r receipt) deactivate(ctx context.Context, q Request) error {
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	daemon, err := host.FindContainerd(ctx, r.Address)
	if err != nil && !errors.Is(err, host.ErrNotRunning) {
		return err
	}
	running := err == nil
	for _, f := range r.Files {
		if f.Kind != dropIn {
			continue
		}
		if err := removeFile(f.Path); err != nil {
			return err
		}
		q.Say("removed %s", f.Path)
	}
	if err := r.undoMain(q); err != nil {
		return err
	}
	if !running {
		return nil
	}
	config, err := daemon.Dump(ctx)
	if err != nil {
		return err
	}
	if _, ok := config.Handler(host.HandlerName); ok {
		return fmt.Errorf("%s or a file that it imports still has the handler %s, which isolatectl install did not write: remove it", daemon.File, host.HandlerName)
	}
	state, err := host.AskHandler(ctx, r.Address, host.HandlerName)
	if err != nil || !state.Known {
		return err
	}
	if q.Restart == host.RestartNever {
		q.Say("containerd, process %d, has to be restarted to forget the handler", daemon.PID)
		return nil
	}
	q.Say("restarting containerd, process %d, by %s", daemon.PID, q.Restart)
	if err := daemon.Restart(ctx, q.Restart); err != nil {
		return err
	}
	if _, err := host.AwaitHandler(ctx, r.Address, host.HandlerName, false); err != nil {
		return err
	}
	q.Say("containerd does not know the handler %s any more", host.HandlerName)
	return nil
}

// undoMain takes back what makes containerd read the drop-ins, unless there are
// others by now.
func (r receipt) undoMain(q Request) error {
	i := slices.IndexFunc(r.Files, func(f file) bool { return f.Kind == mainFile })
	if i < 0 && r.Edit == nil {
		return nil
	}
	left, err := filepath.Glob(host.DropIns)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		q.Say("containerd goes on to import %s", strings.Join(left, ", "))
		return nil
	}
	if i >= 0 {
		q.Say("removed %s", r.Files[i].Path)
		return removeFile(r.Files[i].Path)
	}
	path, text, mode, err := readThrough(r.Edit.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	undone, ok := r.Edit.Undo(text)
	if !ok {
		q.Say("%s has no line %q any more", r.Edit.Path, r.Edit.Line)
		return nil
	}
	if err := atomicfile.WriteDurably(path, []byte(undone), mode); err != nil {
		return err
	}
	q.Say("took the line %q out of %s", r.Edit.Line, r.Edit.Path)
	return nil
}
