// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testprogram"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/version"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	lxcfs.MaybeChild()
	MaybeChild()
	os.Exit(m.Run())
}

func TestResultAndExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		results []Result
		want    Result
		code    int
	}{
		{nil, OK, 0},
		{[]Result{OK, Note}, OK, 0},
		{[]Result{OK, Degraded, OK}, Degraded, 1},
		{[]Result{Degraded, Failed, OK}, Failed, 2},
		{[]Result{Failed, Degraded}, Failed, 2},
	} {
		var r Report
		for _, res := range c.results {
			r.Lines = append(r.Lines, Line{Result: res})
		}
		if r.Result() != c.want || r.ExitCode() != c.code {
			t.Errorf("%v: %s, %d", c.results, r.Result(), r.ExitCode())
		}
	}
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestWriteText(t *testing.T) {
	t.Parallel()
	var r Report
	r.ok("kernel", "Linux %s", "6.18")
	r.bad(Degraded, "lxcfs", "apt-get install lxcfs", "absent")
	r.note("CRI runtimes", "add this to the file:\n[plugins.x]\n  a = 1", "none")
	r.ok("kernel", "Linux %s", "6.18") // said once
	r.bad(Failed, "OCI runtime", "install runc", "none is in any of the directories %s", strings.Repeat("/usr/bin:", 12))
	for name, style := range map[string]Style{"report.txt": {}, "report-60.txt": {Width: 60}, "report-color.txt": {Color: true}} {
		var got bytes.Buffer
		if err := r.WriteText(&got, style); err != nil {
			t.Fatal(err)
		}
		golden(t, name, got.String())
	}
}

func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := testprogram.Write(file, "#!/bin/sh\n"+body+"\n"); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDaemonLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemon{host.Containerd{Process: host.Process{PID: 7, Path: dir}, Address: dir + "/no.sock"}}
	for _, c := range []struct {
		name string
		edit func(*daemon)
		want Line // Reason and Fix are contained
	}{
		{"too old", func(d *daemon) { d.Version = "1.6.20~ds1" }, Line{"containerd, process 7", Failed, "1.6.20~ds1 cannot start", "containerd 2.0"}},
		{"odd version", func(d *daemon) { d.Version = "dev" }, Line{"containerd, process 7", Degraded, "not understood", "containerd 2.0"}},
		{"does not answer", func(d *daemon) { d.Version = "v2.4.2" }, Line{"containerd, process 7", Failed, "no.sock", "restart"}},
		{"changed since", func(d *daemon) { d.File, d.Started = conf, time.Unix(1000, 0) }, Line{"containerd, process 7", Degraded, conf + " was changed", "restart"}},
		{"import changed since", func(d *daemon) {
			d.Effective, d.Started = host.Config{"imports": []any{dir + "/*.toml"}}, time.Unix(1000, 0)
		}, Line{"containerd, process 7", Degraded, conf + " was changed", "restart"}},
		{"no shim", func(*daemon) {}, Line{"shim", Failed, "is not in " + dir, "install"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := d
			c.edit(&d)
			var r Report
			d.check(t.Context(), &r)
			if !slices.ContainsFunc(r.Lines, func(l Line) bool {
				return l.What == c.want.What && l.Result == c.want.Result && strings.Contains(l.Reason, c.want.Reason) && strings.Contains(l.Fix, c.want.Fix)
			}) {
				t.Errorf("%+v is not in %+v", c.want, r.Lines)
			}
		})
	}
}

// What does not confine is not worth a line.
func TestUnconfined(t *testing.T) {
	t.Parallel()
	for _, label := range []string{"", "unconfined", "containerd (unconfined)", "snap.x (complain)", "system_u:system_r:container_runtime_t:s0"} {
		var r Report
		confinement(t.Context(), &r, "containerd", label, t.TempDir())
		if len(r.Lines) > 0 {
			t.Errorf("%q: %+v", label, r.Lines)
		}
	}
}

func TestCheckShim(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		beside     bool
		want       Result
	}{
		{"same version", "echo '" + version.String() + "'", false, OK},
		{"beside containerd", "echo '" + version.String() + "'", true, OK},
		{"another version", "echo isolate v0.0.1", false, Degraded},
		{"broken", "exit 1", false, Failed},
	} {
		dir := t.TempDir()
		script(t, dir, host.ShimName, c.body)
		d := daemon{host.Containerd{Process: host.Process{Path: "/nowhere:" + dir}}}
		if c.beside {
			d.Path, d.Exe = "/nowhere", filepath.Join(dir, "containerd")
		}
		var r Report
		d.checkShim(t.Context(), &r)
		if len(r.Lines) != 1 || r.Result() != c.want {
			t.Errorf("%s: %+v", c.name, r.Lines)
		}
	}
}

func TestLostControllers(t *testing.T) {
	t.Parallel()
	const self = "12:net_cls:/\n11:cpu,cpuacct:/x\n1:name=systemd:/\n0::/\nrubbish\n"
	if got := lostControllers(self, []string{"rw", "cpu", "cpuacct", "name=systemd"}); !slices.Equal(got, []string{"net_cls"}) {
		t.Error(got)
	}
	if got := lostControllers(self, nil); len(got) != 4 {
		t.Error(got)
	}
}

// On a host that runs the tests, each line says something, and each that is not
// fine says what to do. What the host has differs.
func TestRunAnswersEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	finder := runtime.Finder{CacheDir: t.TempDir()}
	r := run(t.Context(), dir, finder)
	if len(r.Lines) == 0 {
		t.Fatal("no lines")
	}
	for _, l := range r.Lines {
		if l.What == "" || l.Reason == "" || l.Result != Note && (l.Result == OK) != (l.Fix == "") {
			t.Errorf("incomplete: %+v", l)
		}
	}
	if os.Geteuid() != 0 {
		if len(r.Lines) != 1 || r.Result() != Failed {
			t.Errorf("without root: %+v", r.Lines)
		}
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte("x = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t.Context(), dir, finder)
	if l := r.Lines[0]; l.What != "configuration" || l.Result != Failed || !strings.Contains(l.Reason, "config.toml:1: x") {
		t.Errorf("%+v", l)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.IDs.Pool = []config.IDRange{{Span: idmap.Span{First: 1 << 30, Size: 65536}}}
	var r Report
	ids(&r, cfg)
	if r.Result() != Degraded || !strings.Contains(r.Lines[0].Reason, "only 1 container") {
		t.Errorf("%+v", r.Lines)
	}
	cfg.IDs.Pool = []config.IDRange{{Span: idmap.Span{Size: 65536}}}
	r = Report{}
	ids(&r, cfg)
	if r.Result() != Failed || !strings.Contains(r.Lines[0].Fix, "ids.pool") {
		t.Errorf("%+v", r.Lines)
	}
}
