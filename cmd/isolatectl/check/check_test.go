// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
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

func TestWriteText(t *testing.T) {
	t.Parallel()
	var r Report
	r.ok("kernel", "Linux %s", "6.18")
	r.bad(Degraded, "lxcfs", "apt-get install lxcfs", "absent")
	r.note("CRI runtimes", "add this to the file:\n[plugins.x]\n  a = 1", "none")
	r.ok("kernel", "Linux %s", "6.18") // said once
	r.bad(Failed, "OCI runtime of a long name beyond forty columns", "install runc", "none")
	var got bytes.Buffer
	if err := r.WriteText(&got); err != nil {
		t.Fatal(err)
	}
	golden := "testdata/report.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	at := func(config, root, address string) settings {
		return settings{Config: config, Root: root, Address: address}
	}
	for _, c := range []struct {
		name string
		args []string
		dump string
		want settings
	}{
		{"nothing said", []string{"/usr/bin/containerd"}, "", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
		{"flags", []string{"containerd", "-c", "/c.toml", "--root=/r/", "-address", "/a.sock", "--log-level", "debug"}, "", at("/c.toml", "/r", "/a.sock")},
		{"Docker's", []string{"containerd", "--config", "/var/run/docker/containerd/containerd.toml"}, "root = '/var/lib/docker/containerd/daemon'\n[grpc]\naddress = '/var/run/docker/containerd/containerd.sock'", at("/var/run/docker/containerd/containerd.toml", "/var/lib/docker/containerd/daemon", "/var/run/docker/containerd/containerd.sock")},
		{"version 4", []string{"containerd"}, "version = 4\nroot = '/r'\n[plugins.'io.containerd.server.v1.grpc']\naddress = '/x.sock'", at("/etc/containerd/config.toml", "/r", "/x.sock")},
		{"flags win over the file", []string{"containerd", "--root", "/var/lib/containerd"}, "root = '/other'", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
		{"flag without value", []string{"containerd", "--root"}, "", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
	} {
		s, err := defaults().withArgs(c.args).withDump([]byte(c.dump))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if s = s.withArgs(c.args); !reflect.DeepEqual(s, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, s, c.want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line         string
		version      string
		major, minor int
		ok           bool
	}{
		{"containerd github.com/containerd/containerd/v2 v2.4.2 abc", "v2.4.2", 2, 4, true},
		{"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1", "1.6.20~ds1", 1, 6, true},
		{"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", "1.7.27", 1, 7, true},
		{"containerd github.com/containerd/containerd/v2 2.4.2+unknown", "2.4.2+unknown", 2, 4, true},
		{"Docker version 26.1.5+dfsg1, build 411e817", "26.1.5+dfsg1", 26, 1, true},
		{"containerd x dev", "dev", 0, 0, false},
		{"", "", 0, 0, false},
	} {
		v, major, minor, ok := parseVersion(c.line)
		if v != c.version || major != c.major || minor != c.minor || ok != c.ok {
			t.Errorf("%q: %q %d %d %v", c.line, v, major, minor, ok)
		}
	}
}

// fakeProc is a /proc with one process.
func fakeProc(t *testing.T, comm, exe string, args, env []string) string {
	t.Helper()
	proc := t.TempDir()
	dir := filepath.Join(proc, "42")
	if err := os.MkdirAll(filepath.Join(dir, "attr"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"comm": comm + "\n", "cmdline": strings.Join(args, "\x00") + "\x00", "environ": strings.Join(env, "\x00") + "\x00",
		"attr/current": "snap.microk8s.daemon-containerd (enforce)\n\x00", "../self": "", "../meminfo": "",
		"stat": "42 (a) b) S 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 250 0", "../stat": "cpu 0\nbtime 1000\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(exe, filepath.Join(dir, "exe")); err != nil {
		t.Fatal(err)
	}
	return proc
}

// only is the one process of that name.
func only(t *testing.T, proc, comm string) host.Process {
	t.Helper()
	found := host.Find(proc, comm)
	if len(found) != 1 || found[0].PID != 42 {
		t.Fatalf("processes %+v", found)
	}
	return found[0]
}

func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := testprogram.Write(file, "#!/bin/sh\n"+body+"\n"); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestInspectDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exe := script(t, dir, "containerd", `case "$*" in
--version) echo containerd github.com/containerd/containerd/v2 v2.4.2 x ;;
"--config `+conf+` config dump") echo 'root = "/srv/containerd"' ;;
*) exit 1 ;;
esac`)
	proc := fakeProc(t, "containerd", exe, []string{"containerd", "--config", conf}, []string{"A=b", "PATH=/x:/y"})
	p := only(t, proc, "containerd")
	d, err := inspectDaemon(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := daemon{
		Process:  p,
		Version:  "containerd github.com/containerd/containerd/v2 v2.4.2 x",
		Label:    "snap.microk8s.daemon-containerd (enforce)",
		settings: settings{Config: conf, Root: "/srv/containerd", Address: "/run/containerd/containerd.sock"},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}

	other := script(t, dir, "other", "echo something else")
	if _, err := inspectDaemon(t.Context(), only(t, fakeProc(t, "containerd", other, nil, nil), "containerd")); err == nil {
		t.Error("another program was taken for containerd")
	}
}

func TestDaemonLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemon{Process: host.Process{PID: 7, Path: dir}, settings: settings{Address: dir + "/no.sock"}}
	for _, c := range []struct {
		name string
		edit func(*daemon)
		want Line // Reason and Fix are contained
	}{
		{"too old", func(d *daemon) { d.Version = "containerd x 1.6.20~ds1" }, Line{"containerd, process 7", Failed, "1.6.20~ds1 cannot start", "containerd 2.0"}},
		{"odd version", func(d *daemon) { d.Version = "containerd x dev" }, Line{"containerd, process 7", Degraded, "not understood", "containerd 2.0"}},
		{"does not answer", func(d *daemon) { d.Version = "containerd x v2.4.2" }, Line{"containerd, process 7", Failed, "no.sock", "restart"}},
		{"confined", func(d *daemon) { d.Label = "snap.x (enforce)" }, Line{"containerd, process 7", Degraded, "AppArmor profile snap.x", "not confined"}},
		{"changed since", func(d *daemon) { d.Config, d.Started = conf, time.Unix(1000, 0) }, Line{"containerd, process 7", Degraded, conf + " was changed", "restart"}},
		{"import changed since", func(d *daemon) { d.Imports, d.Started = []string{dir + "/*.toml"}, time.Unix(1000, 0) }, Line{"containerd, process 7", Degraded, conf + " was changed", "restart"}},
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
		script(t, dir, shimName, c.body)
		d := daemon{Process: host.Process{Path: "/nowhere:" + dir}}
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

func TestOptionsNotIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"lxcfs -l --enable-cfs --enable-pidfd /l", ""},
		{"lxcfs --enable-loadavg --enable-cfs /l", ""},
		{"lxcfs -f /l", "-l --enable-cfs"},
		{"lxcfs -l /l", "--enable-cfs"},
	} {
		if got := strings.Join(optionsNotIn(strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
	proc := fakeProc(t, "lxcfs", "/bin/true", []string{"lxcfs", "-l", "/l"}, nil)
	if got := missingOptions(proc); !slices.Equal(got, []string{"--enable-cfs"}) {
		t.Errorf("running lxcfs: %v", got)
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
	cfg.IDs.Pool = []config.IDRange{{First: 1 << 30, Last: 1<<30 + 65535}}
	var r Report
	ids(&r, cfg)
	if r.Result() != Degraded || !strings.Contains(r.Lines[0].Reason, "only 1 container") {
		t.Errorf("%+v", r.Lines)
	}
	cfg.IDs.Pool = []config.IDRange{{First: 0, Last: 65535}}
	r = Report{}
	ids(&r, cfg)
	if r.Result() != Failed || !strings.Contains(r.Lines[0].Fix, "ids.pool") {
		t.Errorf("%+v", r.Lines)
	}
}

func FuzzDaemonSettings(f *testing.F) {
	f.Add("containerd\x00--root\x00/x", []byte("root = '/r'"))
	f.Add("containerd\x00-c=/x", []byte("[plugins.a.containerd.runtimes.x]\noptions = 3"))
	f.Fuzz(func(_ *testing.T, args string, dump []byte) {
		s := defaults().withArgs(strings.Split(args, "\x00"))
		if s, err := s.withDump(dump); err == nil {
			s.withArgs(strings.Split(args, "\x00"))
		}
		parseVersion(args)
		optionsNotIn(strings.Split(args, "\x00"))
		lostControllers(args, nil)
	})
}
