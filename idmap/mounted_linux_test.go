// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mounted mounts an overlay as a client would, at dir/merged.
func mounted(t *testing.T, dir, options string) {
	t.Helper()
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		mkdir(t, dir+"/"+name)
	}
	write(t, dir+"/lower/file", "lower")
	data := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work" + options
	check(t, unix.Mount("overlay", dir+"/merged", "overlay", 0, data))
	t.Cleanup(func() { _ = unix.Unmount(dir+"/merged", unix.MNT_DETACH) })
}

func mountAt(t *testing.T, path string) *Mount {
	t.Helper()
	m, err := MountAt(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReplaceMounted leads an overlay through all that happens to one that a
// client has mounted: vacated, replaced by a mapped one, and given back.
func TestReplaceMounted(t *testing.T) {
	requireRoot(t)
	requireFeature(t, OverlayBy(MethodPrivate, workDir(t)))
	for _, options := range []string{"", ",volatile", ",metacopy=on,redirect_dir=on", ",userxattr", ",index=off,xino=off"} {
		t.Run(strings.NewReplacer(",", " ", "=", " ").Replace(options), func(t *testing.T) {
			dir := workDir(t)
			mounted(t, dir, options)
			m := mountAt(t, dir+"/merged")
			if !m.IsRoot() || m.Below != "" {
				t.Errorf("root %v, below %q", m.IsRoot(), m.Below)
			}
			o, err := ParseMountedOverlay(m.Options, m.VFSOptions)
			check(t, err)
			check(t, m.Vacate("placeholder"))
			m = mountAt(t, dir+"/merged")
			if m.Source != "placeholder" || m.FSType != "tmpfs" || strings.Count(mountLines(t, dir+"/merged"), "\n") != 1 {
				t.Fatalf("after vacating:\n%s", mountLines(t, dir+"/merged"))
			}

			mapping := Contiguous(300000, 65536)
			owner, _ := mapping.Root()
			built, err := o.BuildAgain(userns(t, mapping), owner, MethodAuto, "ours")
			check(t, err)
			check(t, errors.Join(m.Replace(built), m.Close(), built.Close()))
			wantOwner(t, dir+"/merged/file", "300000:300000")
			check(t, As(owner, func() error { return os.WriteFile(dir+"/merged/new", nil, 0o600) }))
			wantOwner(t, dir+"/upper/new", "0:0")

			m = mountAt(t, dir+"/merged")
			if m.Source != "ours" || strings.Count(mountLines(t, dir+"/merged"), "\n") != 1 {
				t.Fatalf("after replacing:\n%s", mountLines(t, dir+"/merged"))
			}
			check(t, m.Vacate("placeholder"))
			plain, err := o.BuildPlain("overlay", "")
			check(t, err)
			m = mountAt(t, dir+"/merged")
			check(t, errors.Join(m.Replace(plain), m.Close(), plain.Close()))
			wantOwner(t, dir+"/merged/file", "0:0")
			wantOwner(t, dir+"/merged/new", "0:0")
			check(t, os.WriteFile(dir+"/merged/file", nil, 0o600))

			m = mountAt(t, dir+"/merged")
			again, err := ParseMountedOverlay(m.Options, m.VFSOptions)
			check(t, err)
			if got, want := strings.Join(again.MountOptions(), ","), strings.Join(o.MountOptions(), ","); got != want {
				t.Errorf("given back as %s, was %s", got, want)
			}
			check(t, errors.Join(m.Unmount(), m.Close()))
			if lines := mountLines(t, dir+"/merged"); lines != "" {
				t.Errorf("left:\n%s", lines)
			}
		})
	}
}

// TestReplaceUnmounted: a mount that its owner has unmounted meanwhile is not
// replaced by another one, which nobody would unmount.
func TestReplaceUnmounted(t *testing.T) {
	requireRoot(t)
	dir := workDir(t)
	mounted(t, dir, "")
	m := mountAt(t, dir+"/merged")
	unmount(t, dir+"/merged")
	placeholder, err := NewPlaceholder("placeholder")
	check(t, err)
	if err := m.Replace(placeholder); !errors.Is(err, ErrDetached) {
		t.Errorf("replace: %v", err)
	}
	if err := m.replaceStepwise(placeholder); !errors.Is(err, ErrDetached) {
		t.Errorf("replace stepwise: %v", err)
	}
	if err := m.Unmount(); !errors.Is(err, ErrDetached) {
		t.Errorf("unmount: %v", err)
	}
	check(t, errors.Join(m.Close(), placeholder.Close()))
	if lines := mountLines(t, dir+"/merged"); lines != "" {
		t.Errorf("left:\n%s", lines)
	}
}

// TestReplaceStepwise is for kernels that cannot attach beneath.
func TestReplaceStepwise(t *testing.T) {
	requireRoot(t)
	dir := workDir(t)
	mounted(t, dir, "")
	placeholder, err := NewPlaceholder("placeholder")
	check(t, err)
	m := mountAt(t, dir+"/merged")
	check(t, errors.Join(m.replaceStepwise(placeholder), m.Close(), placeholder.Close()))
	if lines := mountLines(t, dir+"/merged"); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " placeholder ") {
		t.Errorf("there is:\n%s", lines)
	}
	// What cannot be attached leaves the one that was there.
	file, err := os.Open(dir)
	check(t, err)
	m = mountAt(t, dir+"/merged")
	if err := m.replaceStepwise(file); err == nil {
		t.Error("attached a directory")
	}
	check(t, errors.Join(m.Close(), file.Close()))
	if lines := mountLines(t, dir+"/merged"); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, " placeholder ") {
		t.Errorf("there is:\n%s", lines)
	}
}

// TestBuildPlainRelative: layers that were given by short names stay short, since
// mount(2) takes one page of options.
func TestBuildPlainRelative(t *testing.T) {
	requireRoot(t)
	dir := workDir(t)
	o := Overlay{Upper: "upper", Work: "work"}
	var lower []string
	for i := range 120 {
		name := strings.Repeat("n", 30) + string(rune('a'+i/26)) + string(rune('a'+i%26))
		mkdir(t, dir+"/"+name)
		lower = append(lower, name)
	}
	o.Lower = lower
	for _, name := range []string{"upper", "work", "merged"} {
		mkdir(t, dir+"/"+name)
	}
	plain, err := o.BuildPlain("overlay", dir)
	check(t, err)
	check(t, Attach(plain, -1, dir+"/merged"))
	check(t, plain.Close())
	t.Cleanup(func() { unmount(t, dir+"/merged") })
	m := mountAt(t, dir+"/merged")
	defer m.Close() //nolint:errcheck // O_PATH
	got, err := ParseMountedOverlay(m.Options, m.VFSOptions)
	check(t, err)
	base, err := got.Base(dir+"/merged", func(path string) bool { _, err := os.Stat(path); return err == nil })
	if err != nil || base != dir {
		t.Errorf("base %q, %v; want %q", base, err, dir)
	}
}

func TestMountAtNothing(t *testing.T) {
	t.Parallel()
	if _, err := MountAt(t.TempDir() + "/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	m, err := MountAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // O_PATH
	if m.IsRoot() {
		t.Errorf("a plain directory is the root of %+v", m.Info)
	}
}
