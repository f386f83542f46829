// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func item(name, version string, make func(Work) error) Item {
	return Item{
		Name:    name,
		Resolve: func(context.Context) (Inputs, error) { return Inputs{Version: version}, nil },
		Make:    func(_ context.Context, w Work) error { return make(w) },
	}
}

func TestGetMakesOnce(t *testing.T) {
	t.Setenv("ISOLATE_CACHE", t.TempDir())
	var made atomic.Int32
	one := item("once", "1:2~3", func(w Work) error {
		made.Add(1)
		return os.WriteFile(filepath.Join(w.Dir, "final"), []byte(w.Final), 0o644)
	})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			dir, err := get(t.Context(), one)
			if err != nil {
				t.Error(err)
				return
			}
			if text, err := os.ReadFile(filepath.Join(dir, "final")); err != nil || string(text) != dir {
				t.Errorf("item says it is at %q, %v, want %q", text, err, dir)
			}
			if strings.ContainsAny(filepath.Base(dir), ":~") {
				t.Errorf("directory %q cannot be in a PATH", dir)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times, want once", made.Load())
	}
	before, err := get(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	after, err := get(t.Context(), item("once", "4", func(Work) error { return nil }))
	if err != nil || after == before {
		t.Errorf("another version is at %q, %v, want another place than %q", after, err, before)
	}
}

func TestGetFails(t *testing.T) {
	root := t.TempDir()
	t.Setenv("ISOLATE_CACHE", root)
	cause := errors.New("no luck")
	_, err := get(t.Context(), item("failing", "1", func(w Work) error {
		fmt.Fprint(w.Log, strings.Repeat("x", 2*tailSize)+"the end")
		return cause
	}))
	if !errors.Is(err, cause) || !strings.HasSuffix(err.Error(), "xthe end") || len(err.Error()) > tailSize+1000 {
		t.Errorf("error is %.200q of %d bytes", err, len(err.Error()))
	}
	left, err := filepath.Glob(filepath.Join(root, "failing*1*[^k]"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".new-*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestServe(t *testing.T) {
	t.Setenv("ISOLATE_CACHE", t.TempDir())
	Register(item("served", "1", func(w Work) error { return os.WriteFile(filepath.Join(w.Dir, "x"), nil, 0o644) }))
	Register(item("unserved", "1", func(Work) error { return errors.New("no luck") }))
	env, stop, err := Serve(t.Context(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	path := strings.TrimPrefix(env, socketEnv+"=")
	dir, err := ask(t.Context(), path, "served")
	if err != nil || !exists(filepath.Join(dir, "x")) {
		t.Errorf("served at %q, %v", dir, err)
	}
	for name, want := range map[string]string{"unserved": "no luck", "nothing": "no such item"} {
		if _, err := ask(t.Context(), path, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ask for %q: %v, want %q", name, err, want)
		}
	}
}
