// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// group makes a group in one hierarchy of the host; it and all below are gone after
// the test.
func group(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dirs, err := cgroupfs.Dirs(fmt.Sprintf("/isolate-%s-%d", t.Name(), os.Getpid()))
	if err != nil || len(dirs) == 0 {
		t.Fatal("no hierarchy is mounted", err)
	}
	dir := dirs[len(dirs)-1]
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cgroupfs.Remove(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// below makes groups that belong to a user.
func below(t *testing.T, uid int, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// A runtime that is killed while it creates a container leaves cgroups.
func TestCleanupRemovesCgroups(t *testing.T) {
	t.Parallel()
	dir := group(t)
	below(t, 0, dir+"/a", dir+"/a/init", dir+"/a/init/deep", dir+"/beside")
	plain := t.TempDir() // in records of earlier versions
	r := sample(t.TempDir())
	r.Cgroups = []string{dir + "/a", dir + "/absent", plain}
	if err := errors.Join(r.Save(), r.Cleanup(nil)); err != nil {
		t.Fatal(err)
	}
	if exists(dir+"/a") || !exists(dir+"/beside") || !exists(plain) {
		t.Error("wrong groups were removed")
	}
}

// Of a group that existed before the container, it and groups of others stay.
func TestCleanupKeepsGroupsOfOthers(t *testing.T) {
	t.Parallel()
	dir := group(t)
	r := sample(t.TempDir())
	own := int(r.Mapping.UIDs[0].Host) + 7
	below(t, own, dir+"/own", dir+"/own/below")
	below(t, 0, dir+"/theirs", dir+"/theirs/below")
	r.Cgroups, r.Premade = []string{dir}, []string{dir}
	if err := errors.Join(r.Save(), r.Cleanup(nil)); err != nil {
		t.Fatal(err)
	}
	if exists(dir+"/own") || !exists(dir+"/theirs/below") {
		t.Error("wrong groups were removed")
	}
}

// The runtime removes groups by path, which fails where one is longer than PATH_MAX.
func TestGroupsBelowAreGoneBeforeTheRuntimeDeletes(t *testing.T) {
	t.Parallel()
	dir := group(t)
	here := dir
	for range 10 {
		here = filepath.Join(here, strings.Repeat("d", 200))
		below(t, 0, here)
	}
	r := sample(t.TempDir())
	r.Cgroups = []string{dir}
	r.Runtime = Runtime{Path: filepath.Join(t.TempDir(), "runtime"), Root: t.TempDir()}
	state := filepath.Join(r.Runtime.Root, r.Namespace, r.ID)
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf("#!/bin/sh\n[ \"$(echo %s/d*)\" = '%[1]s/d*' ] && rmdir %[1]s && rmdir %[2]s\n", dir, state)
	if err := testprogram.Write(r.Runtime.Path, program); err != nil {
		t.Fatal(err)
	}
	if err := r.StopRuntime(t.Context()); err != nil || exists(dir) {
		t.Error(err)
	}
}
