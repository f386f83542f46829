// SPDX-License-Identifier: Apache-2.0

// Package cache makes slow things once: built programs, unpacked packages,
// images.
//
// An item is a directory named after the item, its version and a hash of all
// that went into it, so that a changed recipe never meets an old result. It is
// made in a temporary directory and renamed, so that a directory that exists is
// complete. Items are registered by name, because a rig asks for them from
// inside network namespaces that reach nothing: the process outside, which is
// the same program, makes them (see [Serve]).
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Inputs is everything the content of an item depends on.
type Inputs struct {
	// Version is the version people know the item by.
	Version string
	// Parts are further inputs: closures, recipes, keys of other items.
	Parts []string
}

// Work is one item being made.
type Work struct {
	// Dir is to be filled.
	Dir string
	// Final is where Dir will be once it is complete, for content that has to
	// know its own path.
	Final string
	// Log takes the output of the commands that are run.
	Log io.Writer
	Inputs
}

// Item says how one thing is made.
type Item struct {
	// Name is unique, and a valid file name.
	Name string
	// Resolve tells the inputs. It is called for each process that asks, so it
	// has to be quick when nothing has changed.
	Resolve func(ctx context.Context) (Inputs, error)
	// Make fills w.Dir.
	Make func(ctx context.Context, w Work) error
}

var (
	mu       sync.Mutex
	items    = map[string]Item{}
	resolved = map[string]string{}
)

// Register makes an item known. It is meant for package initialisation.
func Register(item Item) {
	mu.Lock()
	defer mu.Unlock()
	items[item.Name] = item
}

// Names lists the registered items, sorted.
func Names() []string {
	mu.Lock()
	defer mu.Unlock()
	return slices.Sorted(maps.Keys(items))
}

// Root is the directory of the cache: $ISOLATE_CACHE, else "isolate" in
// $XDG_CACHE_HOME or ~/.cache.
func Root() (string, error) {
	if dir := os.Getenv("ISOLATE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory (set ISOLATE_CACHE): %w", err)
	}
	return filepath.Join(base, "isolate"), nil
}

// Get returns the directory of an item, after making it if need be.
func Get(ctx context.Context, name string) (string, error) {
	mu.Lock()
	item, ok := items[name]
	dir := resolved[name]
	mu.Unlock()
	if !ok {
		return "", fmt.Errorf("get %q: no such item; there are %q", name, Names())
	}
	if dir != "" {
		return dir, nil
	}
	var err error
	if path := os.Getenv(socketEnv); path != "" {
		dir, err = ask(ctx, path, name)
	} else {
		dir, err = get(ctx, item)
	}
	if err != nil {
		return "", err
	}
	mu.Lock()
	defer mu.Unlock()
	resolved[name] = dir
	return dir, nil
}

func get(ctx context.Context, item Item) (_ string, err error) {
	inputs, err := item.Resolve(ctx)
	if err != nil {
		return "", fmt.Errorf("resolve %q: %w", item.Name, err)
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	final := filepath.Join(root, item.Name+"-"+key(inputs))
	// Looked at before anything is locked, so that a cache on a read-only file
	// system can be used.
	if exists(final) {
		progress(item.Name, inputs, "cached")
		return final, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make cache: %w", err)
	}
	unlock, err := Lock(ctx, final+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(final) {
		progress(item.Name, inputs, "cached")
		return final, nil
	}
	return final, make1(ctx, item, inputs, root, final)
}

func make1(ctx context.Context, item Item, inputs Inputs, root, final string) error {
	temporary, err := os.MkdirTemp(root, ".new-"+item.Name+"-")
	if err != nil {
		return fmt.Errorf("make %q: %w", item.Name, err)
	}
	defer os.RemoveAll(temporary)
	dir := filepath.Join(temporary, "content")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(temporary, 0o755)); err != nil {
		return fmt.Errorf("make %q: %w", item.Name, err)
	}
	log := &tail{}
	progress(item.Name, inputs, "making it, please wait")
	start := time.Now()
	if err := item.Make(ctx, Work{Dir: dir, Final: final, Log: log, Inputs: inputs}); err != nil {
		return fmt.Errorf("make %q: %w\n%s", item.Name, err, log)
	}
	if err := os.Rename(dir, final); err != nil {
		return fmt.Errorf("make %q: %w", item.Name, err)
	}
	progress(item.Name, inputs, fmt.Sprintf("ready after %.1f s", time.Since(start).Seconds()))
	return nil
}

// Lock takes an exclusive lock on a file, which it makes, and returns what
// releases it. The lock dies with the process.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("lock %q: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func key(inputs Inputs) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", inputs.Version)
	for _, part := range inputs.Parts {
		fmt.Fprintf(sum, "%q\n", part)
	}
	hash := hex.EncodeToString(sum.Sum(nil))[:10]
	if inputs.Version == "" {
		return hash
	}
	return fileName(inputs.Version) + "-" + hash
}

// fileName replaces what Debian versions may hold and file names had better
// not: the colon of an epoch, which separates directories in PATH.
func fileName(version string) string {
	name := []byte(version)
	for i, c := range name {
		if c == ':' || c == '/' || c == '~' {
			name[i] = '_'
		}
	}
	return string(name)
}

func progress(name string, inputs Inputs, what string) {
	fmt.Fprintf(os.Stderr, "%-22s %-28s %s\n", name, inputs.Version, what)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// tail keeps the end of what is written to it, for the error message.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
