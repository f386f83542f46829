// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

var methods = []Method{MethodDetached, MethodPrivate}

// forMethods runs a test with each method that this kernel has to have.
func forMethods(t *testing.T, test func(t *testing.T, method Method)) {
	t.Helper()
	testmounts.RequireRoot(t)
	for _, method := range methods {
		t.Run(method.String(), func(t *testing.T) {
			t.Parallel()
			testmounts.RequireFeature(t, OverlayBy(method, testmounts.Dir(t)))
			test(t, method)
		})
	}
}

// stack makes n layers, upper and work below dir. Layer number i, the top one is
// 0, has the files "layer" with its number, "only.<i>", and the bottom one what
// tests change.
func stack(tb testing.TB, dir string, n int) Overlay {
	tb.Helper()
	o := Overlay{
		Upper: dir + "/snapshots/9999/fs", Work: dir + "/snapshots/9999/work",
		Options: []mount.Option{{Key: "index", Value: "off", HasValue: true}},
	}
	for i := range n {
		layer := fmt.Sprintf("%s/snapshots/%d/fs", dir, n-i)
		testmounts.Write(tb, layer+"/layer", strconv.Itoa(i))
		testmounts.Write(tb, fmt.Sprintf("%s/only.%d", layer, i), "")
		o.Lower = append(o.Lower, layer)
	}
	bottom := o.Lower[n-1]
	for _, name := range []string{"capable", "changed", "deleted", "owned", "acl"} {
		testmounts.Write(tb, bottom+"/"+name, "lower")
	}
	testmounts.Check(tb, os.Chown(bottom+"/owned", 1000, 1001))
	testmounts.Check(tb, unix.Setxattr(bottom+"/capable", "security.capability", capV2, 0))
	testmounts.Check(tb, unix.Setxattr(bottom+"/acl", "system.posix_acl_access", aclFor(1000), 0))
	testmounts.Mkdir(tb, o.Upper)
	testmounts.Mkdir(tb, o.Work)
	testmounts.Mkdir(tb, dir+"/rootfs")
	return o
}

func build(tb testing.TB, o Overlay, ns *os.File, m idmap.Mapping, method Method) *os.File {
	tb.Helper()
	root, ok := m.Root()
	if !ok {
		tb.Fatal("no root")
	}
	overlay, err := o.Build(ns, root, method)
	if err != nil {
		tb.Fatal(err)
	}
	return overlay
}

// TestContainerOnOverlay: what a container does lands on disk owned by its own
// ids, file capabilities and ACLs included, and serves another start with
// another range.
func TestContainerOnOverlay(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		dir := testmounts.Dir(t)
		o := stack(t, dir, 3)
		rootfs := dir + "/rootfs"
		for _, start := range []struct {
			mapping idmap.Mapping
			helper  string
		}{
			{idmap.Contiguous(0x70000000, 65536), "workload"},
			{idmap.Contiguous(0x70450000, 65536), "inspect"},
		} {
			ns := testmounts.Userns(t, start.mapping)
			before := testmounts.Lines(t, dir)
			m := build(t, o, ns, start.mapping, method)
			if after := testmounts.Lines(t, dir); after != before {
				t.Errorf("build left mounts:\n%s", after)
			}
			testmounts.Check(t, mount.Attach(m, -1, rootfs))
			testmounts.Check(t, m.Close())
			cmd := testmounts.Program(t, start.mapping, start.helper, rootfs)
			err := cmd.Run()
			testmounts.Detach(t, rootfs)
			if err != nil {
				t.Fatalf("%s: %v\n%s", start.helper, err, cmd.Stderr)
			}
		}
		for path, want := range map[string]string{
			"": "0:0", "/renamed": "0:0", "/dir": "0:0", "/dir/user": "1000:1000", "/dir/second": "0:0", "/changed": "0:0",
			"/setcap": "0:0", "/capable": "0:0", "/owned": "1000:1001", "/deleted": "0:0",
		} {
			testmounts.WantOwner(t, o.Upper+path, want)
		}
		for _, err := range []error{
			wantXattr(o.Upper+"/setcap", "security.capability", capV2),
			wantXattr(o.Upper+"/capable", "security.capability", capV2),
			wantXattr(o.Upper+"/setacl", "system.posix_acl_access", aclFor(1000)),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		var whiteout unix.Stat_t
		testmounts.Check(t, unix.Lstat(o.Upper+"/deleted", &whiteout))
		if whiteout.Mode&unix.S_IFMT != unix.S_IFCHR || whiteout.Rdev != 0 {
			t.Errorf("deleted file left mode %#o rdev %d, want a whiteout", whiteout.Mode, whiteout.Rdev)
		}
		err := filepath.WalkDir(dir+"/snapshots", func(path string, _ os.DirEntry, err error) error {
			if uid, _, _ := strings.Cut(testmounts.Owner(path), ":"); len(uid) > 4 {
				t.Errorf("%s is owned by %s on disk", path, testmounts.Owner(path))
			}
			return err
		})
		testmounts.Check(t, err)
	})
}

// TestManyLayers: more layers with longer paths than fit the page that mount(2)
// takes, all of them there and in order, with options that reach the mount.
func TestManyLayers(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		dir := filepath.Join(testmounts.Dir(t), strings.Repeat("long", 20))
		o := stack(t, dir, 64)
		if n := len(strings.Join(o.Lower, ":")); n < 2*os.Getpagesize() {
			t.Fatalf("only %d bytes of options", n)
		}
		o.Attrs = attrNosuid | attrNodev | attrNoatime
		m := idmap.Contiguous(300000, 65536)
		testmounts.Attach(t, build(t, o, testmounts.Userns(t, m), m, method), dir+"/rootfs")
		content, err := os.ReadFile(dir + "/rootfs/layer")
		if err != nil || string(content) != "0" {
			t.Errorf("top layer is %q, %v", content, err)
		}
		for i := range 64 {
			testmounts.WantOwner(t, fmt.Sprintf("%s/rootfs/only.%d", dir, i), "300000:300000")
		}
		line := strings.TrimSpace(testmounts.Lines(t, dir+"/rootfs"))
		if !strings.Contains(line, " rw,nosuid,nodev,noatime ") || !strings.HasSuffix(strings.SplitAfter(line, "overlay")[0], " - overlay") {
			t.Errorf("mounted as %s", line)
		}
	})
}

// TestReadOnlyOverlays: without upper, with one layer and with many, and with
// upper but asked to be read-only.
func TestReadOnlyOverlays(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		dir := testmounts.Dir(t)
		full := stack(t, dir, 3)
		m := idmap.Contiguous(300000, 65536)
		ns := testmounts.Userns(t, m)
		asked := full
		asked.ReadOnly = true
		for name, o := range map[string]Overlay{
			"one":   {Lower: full.Lower[2:], Attrs: attrNosuid},
			"three": {Lower: full.Lower, Attrs: attrNosuid},
			"asked": asked,
		} {
			target := dir + "/" + name
			testmounts.Mkdir(t, target)
			testmounts.Attach(t, build(t, o, ns, m, method), target)
			testmounts.WantOwner(t, target+"/changed", "300000:300000")
			if err := os.WriteFile(target+"/changed", nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: write gave %v", name, err)
			}
		}
	})
}

// TestSilentReadOnly: creating the overlay with ids outside the mapping makes
// the kernel mount it read-only without an error. That must not pass.
func TestSilentReadOnly(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		dir := testmounts.Dir(t)
		o := stack(t, dir, 2)
		before := testmounts.Lines(t, dir)
		m, err := o.Build(testmounts.Userns(t, idmap.Contiguous(300000, 65536)), idmap.Owner{UID: 0, GID: 0}, method)
		if err == nil {
			testmounts.Close(t, m)
			t.Fatal("no error")
		}
		if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), "0:0 cannot create") || !strings.Contains(err.Error(), o.Work) {
			t.Errorf("error %v", err)
		}
		if after := testmounts.Lines(t, dir); after != before {
			t.Errorf("mounts left:\n%s", after)
		}
	})
}

// TestOddLayers: names that mean something in mount options, symbolic links,
// layers that are mounts of their own.
func TestOddLayers(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		testmounts.RequireFeature(t, mount.MappableTmpfs())
		dir := testmounts.Dir(t)
		o := stack(t, dir, 1)
		odd := dir + `/snapshots/a:b,c\d e`
		testmounts.Write(t, odd+"/odd", "")
		testmounts.Mount(t, "tmpfs", dir+"/snapshots/mounted", "mode=0755")
		testmounts.Write(t, dir+"/snapshots/mounted/mounted", "")
		testmounts.Write(t, dir+"/outside/linked", "")
		testmounts.Check(t, os.Symlink(dir+"/outside", dir+"/snapshots/link"))
		testmounts.Check(t, os.Rename(dir+"/snapshots/9999", dir+"/snapshots/u:p,p\\er"))
		o.Upper, o.Work = dir+"/snapshots/u:p,p\\er/fs", dir+"/snapshots/u:p,p\\er/work"
		m := idmap.Contiguous(300000, 65536)
		ns := testmounts.Userns(t, m)
		for name, lower := range map[string][]string{
			"odd":     {odd},
			"mounted": {dir + "/snapshots/mounted"},
			"linked":  {dir + "/snapshots/link"},
		} {
			o := o
			o.Lower = append(lower, o.Lower...)
			target := dir + "/rootfs"
			overlay := build(t, o, ns, m, method)
			testmounts.Check(t, mount.Attach(overlay, -1, target))
			testmounts.Check(t, overlay.Close())
			testmounts.WantOwner(t, target+"/"+name, "300000:300000")
			testmounts.WantOwner(t, target+"/only.0", "300000:300000")
			testmounts.Detach(t, target)
		}
	})
}

// TestBuildErrors: each reason is told apart.
func TestBuildErrors(t *testing.T) {
	t.Parallel()
	forMethods(t, func(t *testing.T, method Method) {
		dir := testmounts.Dir(t)
		good := stack(t, dir, 2)
		testmounts.Mount(t, "ramfs", dir+"/snapshots/ram", "")
		testmounts.Mkdir(t, dir+"/snapshots/ram/fs")
		testmounts.Mkdir(t, dir+"/snapshots/ram/work")
		testmounts.Mount(t, "tmpfs", dir+"/snapshots/9998/fs", "")
		testmounts.Mkdir(t, dir+"/snapshots/9998/work")
		m := idmap.Contiguous(300000, 65536)
		ns := testmounts.Userns(t, m)
		root, _ := m.Root()
		for _, tc := range []struct {
			name string
			edit func(o *Overlay)
			is   error
			says string
		}{
			{
				name: "lower without mapping", is: mount.ErrNotIDMappable, says: "ramfs",
				edit: func(o *Overlay) { o.Lower = append([]string{dir + "/snapshots/ram/fs"}, o.Lower...) },
			},
			{
				name: "upper without mapping", is: mount.ErrNotIDMappable, says: "ramfs",
				edit: func(o *Overlay) {
					o.Upper, o.Work = dir+"/snapshots/ram/fs", dir+"/snapshots/ram/work"
				},
			},
			{
				name: "missing layer", is: unix.ENOENT, says: dir + "/gone",
				edit: func(o *Overlay) { o.Lower = append([]string{dir + "/gone"}, o.Lower...) },
			},
			{
				name: "missing upper", is: unix.ENOENT, says: "upperdir",
				edit: func(o *Overlay) { o.Upper += "gone" },
			},
			{
				name: "upper and work on different mounts", says: "mount point of its own",
				edit: func(o *Overlay) {
					o.Upper, o.Work = dir+"/snapshots/9998/fs", dir+"/snapshots/9998/work"
				},
			},
			{
				name: "bad option", is: unix.EINVAL,
				edit: func(o *Overlay) { o.Options = []mount.Option{{Key: "bogus"}} },
			},
			{
				name: "adopted", says: "mapping of their own",
				edit: func(o *Overlay) { o.Adopted = &m },
			},
		} {
			o := good
			tc.edit(&o)
			overlay, err := o.Build(ns, root, method)
			if err == nil {
				testmounts.Close(t, overlay)
				t.Errorf("%s: no error", tc.name)
				continue
			}
			if tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s: error %v", tc.name, err)
			}
		}
	})
}

// TestMethodAuto is not parallel: it looks at what the process remembers.
func TestMethodAuto(t *testing.T) {
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, OverlayBy(MethodPrivate, testmounts.Dir(t)))
	dir := testmounts.Dir(t)
	o := stack(t, dir, 2)
	m := idmap.Contiguous(300000, 65536)
	ns := testmounts.Userns(t, m)
	root, _ := m.Root()

	provenMethod.Store(uint32(MethodAuto))
	bad := o
	bad.Options = []mount.Option{{Key: "bogus"}}
	_, err := bad.Build(ns, root, MethodAuto)
	var unbuildable *UnbuildableError
	if !errors.As(err, &unbuildable) {
		t.Fatalf("error %v", err)
	}
	if len(unbuildable.Attempts) != 2 || unbuildable.Kernel != feature.Release() || unbuildable.Path != o.Upper || unbuildable.FSType == "" {
		t.Errorf("incomplete: %+v", unbuildable)
	}
	if !strings.Contains(err.Error(), "bogus") {
		t.Errorf("%q lacks the kernel's words", err)
	}
	if proven := Method(provenMethod.Load()); proven != MethodAuto {
		t.Errorf("remembers %s after a failure", proven)
	}

	want := MethodDetached
	if OverlayBy(MethodDetached, dir).Check() != nil {
		want = MethodPrivate
	}
	provenMethod.Store(uint32(MethodAuto))
	for range 2 {
		overlay, err := o.Build(ns, root, MethodAuto)
		testmounts.Check(t, err)
		testmounts.Attach(t, overlay, dir+"/rootfs")
		testmounts.Check(t, os.WriteFile(dir+"/rootfs/layer", nil, 0o600))
		testmounts.Detach(t, dir+"/rootfs")
		if proven := Method(provenMethod.Load()); proven != want {
			t.Errorf("remembers %s, want %s", proven, want)
		}
	}
}

// TestMountinfoAsWritten: what the kernel shows of an overlay parses to the
// layers it was given.
func TestMountinfoAsWritten(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	names := []string{"plain", "a b", "c:d", "e,f", `g\h`, "i=j", "tab\tnl\n"}
	o := Overlay{Upper: dir + "/u p,p", Work: dir + "/w:k"}
	for _, n := range append(names, "../u p,p", "../w:k") {
		testmounts.Mkdir(t, dir+"/lower/"+n)
	}
	var escaped []string
	for _, n := range names {
		o.Lower = append(o.Lower, dir+"/lower/"+n)
		escaped = append(escaped, layerEscaper.Replace(dir+"/lower/"+n))
	}
	testmounts.Mkdir(t, dir+"/merged")
	data := "lowerdir=" + strings.Join(escaped, ":") + ",upperdir=" + layerEscaper.Replace(o.Upper) + ",workdir=" + layerEscaper.Replace(o.Work)
	testmounts.Check(t, unix.Mount("overlay", dir+"/merged", "overlay", 0, data))
	t.Cleanup(func() { testmounts.Unmount(t, dir+"/merged") })
	fields := strings.Split(strings.TrimSuffix(testmounts.Lines(t, dir+"/merged"), "\n"), " ")
	got, err := parseMountedOverlay("", fields[len(fields)-1])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(got.Lower, "|") != strings.Join(o.Lower, "|") || got.Upper != o.Upper || got.Work != o.Work {
		t.Errorf("%s\ngot  %+v\nwant %+v", fields[len(fields)-1], got, o)
	}
}

func BenchmarkBuild(b *testing.B) {
	testmounts.RequireRoot(b)
	m := idmap.Contiguous(300000, 65536)
	ns := testmounts.Userns(b, m)
	for _, n := range []int{1, 10, 60} {
		dir := testmounts.Dir(b)
		o := stack(b, dir, n)
		for _, method := range methods {
			b.Run(fmt.Sprintf("%s/%d", method, n), func(b *testing.B) {
				// Medians: single runs vary by a factor on a busy machine. The
				// unmounting in between is not part of it.
				var took []time.Duration
				for b.Loop() {
					begin := time.Now()
					overlay := build(b, o, ns, m, method)
					testmounts.Check(b, mount.Attach(overlay, -1, dir+"/rootfs"))
					testmounts.Check(b, overlay.Close())
					took = append(took, time.Since(begin))
					testmounts.Detach(b, dir+"/rootfs")
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs/build")
			})
		}
	}
}
