// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// isolatectl runs the command as containerd's host has it.
func (h host) isolatectl(t testing.TB, args ...string) rig.Result {
	t.Helper()
	return rig.Exec(t.Context(), append([]string{"env", "PATH=" + h.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "isolatectl"}, args...)...)
}

// checked is what `isolatectl check --json` prints.
type checked struct {
	Result string
	Lines  []struct{ What, Result, Reason, Fix string }
}

// check runs isolatectl's check in both forms, and demands that they agree.
func (h host) check(t testing.TB, code int, prefix ...string) checked {
	t.Helper()
	command := func(args ...string) rig.Result {
		path := "PATH=" + h.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin"
		argv := append([]string{"env", path}, prefix...)
		return rig.Exec(t.Context(), append(append(argv, "isolatectl", "check"), args...)...)
	}
	r := command("--json")
	var c checked
	if err := json.Unmarshal([]byte(r.Stdout), &c); err != nil {
		t.Fatalf("%v in %q, %q", err, r.Stdout, r.Stderr)
	}
	if r.Code != code {
		t.Errorf("exit status %d, want %d:\n%s", r.Code, code, r.Stdout)
	}
	text := command()
	if text.Code != code {
		t.Errorf("exit status %d as text, want %d:\n%s", text.Code, code, text.Stdout)
	}
	for _, l := range c.Lines {
		if (l.Result == "ok") != (l.Fix == "") || l.Reason == "" {
			t.Errorf("line without reason or fix: %+v", l)
		}
		for _, part := range append(strings.Split(l.Fix, "\n"), l.What+": "+l.Reason) {
			if !strings.Contains(text.Stdout, part) {
				t.Errorf("%q is not in\n%s", part, text.Stdout)
			}
		}
	}
	return c
}

// line returns the line about something, which must be there.
func (c checked) line(t testing.TB, what string) (result, reason string) {
	t.Helper()
	for _, l := range c.Lines {
		if strings.HasPrefix(l.What, what) {
			return l.Result, l.Reason
		}
	}
	t.Fatalf("nothing about %q in %+v", what, c)
	return "", ""
}

// TestCtlCheck brings about each verdict: all is well, something is missing,
// containers cannot run. Looking leaves nothing behind.
func TestCtlCheck(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	h := hostOf(t, peer.Containerd24)
	h.check(t, 1) // what it learns of the runtimes on containerd's PATH is kept, as by the shim
	before := rig.MustSnapshot(t)
	t.Run("degraded", func(t *testing.T) {
		c := h.check(t, 1)
		if result, reason := c.line(t, "lxcfs"); c.Result != "degraded" || result != "degraded" || !strings.Contains(reason, "not running") {
			t.Errorf("%+v", c)
		}
	})
	t.Run("failed", func(t *testing.T) {
		rig.Configure(t, "[runtime]\nbinary = \"/nope/runc\"\n")
		c := h.check(t, 2)
		if result, reason := c.line(t, "OCI runtime"); c.Result != "failed" || result != "failed" || !strings.Contains(reason, "/nope/runc") {
			t.Errorf("%+v", c)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		rig.Configure(t, "shiny = 1\n")
		c := h.check(t, 2)
		if result, reason := c.line(t, "configuration"); result != "failed" || !strings.Contains(reason, "config.toml:1: shiny: unknown key") {
			t.Errorf("%+v", c)
		}
	})
	rig.MustMatch(t, before)
	t.Run("ok", func(t *testing.T) {
		rig.LxcfsFor(t, peer.Lxcfs6, "")
		before := rig.MustSnapshot(t)
		// The rig's /etc is an overlay, which no kernel can idmap; a host's is not.
		c := h.check(t, 0, "unshare", "--mount", "sh", "-c", "mount -t tmpfs etc /etc && exec \"$@\"", "sh")
		if c.Result != "ok" {
			t.Errorf("%+v", c)
		}
		for what, want := range map[string]string{
			fmt.Sprintf("containerd, process %d", h.Pid()): h.Address, "images in " + h.Root: "idmap",
			"overlay in " + h.Root: "method", "OCI runtime": "runc 1.5",
			"lxcfs": "/var/lib/lxcfs", "host ids": "1879048192", "kernel": "Linux", "cgroups": "version",
		} {
			if result, reason := c.line(t, what); result != "ok" || !strings.Contains(reason, want) {
				t.Errorf("%s: %s, %q; want %q", what, result, reason, want)
			}
		}
		rig.MustMatch(t, before)
	})
	t.Run("not root", func(t *testing.T) {
		programs, err := rig.Built(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// A program that everybody can reach.
		copied := filepath.Join("/run", "isolatectl-copy")
		text, err := os.ReadFile(programs["isolatectl"])
		if err != nil {
			t.Fatal(err)
		}
		if err := testprogram.Write(copied, string(text)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(copied) })
		r := rig.Exec(t.Context(), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", copied, "check")
		if r.Code != 2 || !strings.Contains(r.Stdout, "root") {
			t.Errorf("%+v", r)
		}
	})
}

// TestCtlConfig prints effective values with their origins.
func TestCtlConfig(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	rig.Configure(t, "nesting = \"off\"\n\n[lxcfs]\nmode = \"require\"\ntimeout_ms = 900\n")
	dir := "/etc/isolate/config.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for name, text := range map[string]string{
		"20-later.toml":   "[lxcfs]\nmode = \"off\"\n",
		"10-earlier.toml": "[lxcfs]\nmode = \"auto\"\n[ids]\nsize = 131072\n",
		".30-hidden.toml": "nesting = \"full\"\n",
		"40-other.txt":    "this is not TOML",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Join(strings.Fields(h.isolatectl(t, "config").Must(t)), " ")
	for _, want := range []string{
		`nesting = "off" # /etc/isolate/config.toml:1`,
		`lxcfs.mode = "off" # /etc/isolate/config.d/20-later.toml:2`,
		`lxcfs.timeout_ms = 900 # /etc/isolate/config.toml:5`,
		`ids.size = 131072 # /etc/isolate/config.d/10-earlier.toml:4`,
		`caps = "full" # default`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	var settings []struct {
		Key, Origin, Description string
		Value                    any
	}
	if err := json.Unmarshal([]byte(h.isolatectl(t, "config", "--json").Must(t)), &settings); err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	for _, s := range settings {
		found[s.Key+" "+s.Origin] = s.Value
		if s.Description == "" {
			t.Errorf("%s has no description", s.Key)
		}
	}
	if found["lxcfs.mode /etc/isolate/config.d/20-later.toml:2"] != "off" || found["ids.size /etc/isolate/config.d/10-earlier.toml:4"] != 131072.0 {
		t.Errorf("JSON has %v", found)
	}

	if err := os.WriteFile(filepath.Join(dir, "30-wrong.toml"), []byte("\n[lxcfs]\nmodes = \"off\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := h.isolatectl(t, "config")
	refused(t, r, "/etc/isolate/config.d/30-wrong.toml:3", "lxcfs.modes", "unknown key", `"lxcfs.mode"`)
	if r.Code != 3 || r.Stdout != "" {
		t.Errorf("exit status %d, stdout %q", r.Code, r.Stdout)
	}
	r = h.isolatectl(t, "config", "--describe")
	refused(t, r, "/etc/isolate/config.d/30-wrong.toml:3", "lxcfs.modes")
	if r.Code != 3 || !strings.Contains(r.Stdout, "lxcfs.mode = ") {
		t.Errorf("with a wrong configuration, the keys are not told: %+v", r)
	}
	for _, wrong := range [][]string{{"config", "extra"}, {"nope"}, {"check", "--nope"}} {
		if r := h.isolatectl(t, wrong...); r.Code != 3 || r.Stderr == "" {
			t.Errorf("isolatectl %q: %+v", wrong, r)
		}
	}
}

// TestCtlIds shows who has which ids, while it has them and after.
func TestCtlIds(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	type report struct {
		Ranges []struct {
			First, Last          uint32
			Namespace, ID, State string
		}
	}
	ids := func() report {
		var r report
		if err := json.Unmarshal([]byte(h.isolatectl(t, "ids", "--json").Must(t)), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ids(); len(r.Ranges) != 0 {
		t.Errorf("in use at first: %+v", r)
	}
	h.start(t, "a")
	r := ids()
	if len(r.Ranges) != 1 || r.Ranges[0].First != 1879048192 || r.Ranges[0].Last != 1879113727 ||
		r.Ranges[0].Namespace != "default" || r.Ranges[0].ID != "a" || r.Ranges[0].State != "held" {
		t.Errorf("in use by a container: %+v", r)
	}
	if text := h.isolatectl(t, "ids").Must(t); !strings.Contains(text, "1879048192") || !strings.Contains(text, "held") {
		t.Errorf("printed %q", text)
	}
	ps := func() []map[string]any {
		var list []map[string]any
		if err := json.Unmarshal([]byte(h.isolatectl(t, "ps", "--json").Must(t)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := ps()
	if len(list) != 1 || list[0]["id"] != "a" || list[0]["state"] != "running" || list[0]["mode"] != "own" || list[0]["first"] != 1879048192.0 {
		t.Errorf("runs: %v", list)
	}
	if text := h.isolatectl(t, "ps").Must(t); !strings.Contains(text, "running") || !strings.Contains(text, "runc 1.5") {
		t.Errorf("printed %q", text)
	}
	if image, ok := list[0]["image"].(string); !ok || image == "" {
		t.Errorf("containerd's image of it is not told: %v", list)
	}
	h.Ctr(t.Context(), "tasks", "pause", "a").Must(t)
	if list := ps(); list[0]["state"] != "paused" {
		t.Errorf("a paused container: %v", list)
	}
	for _, metric := range []string{
		`isolate_containers{runtime="` + filepath.Base(fmt.Sprint(list[0]["runtime"])) + `",rootfs="mounted",mode="own",state="paused"} 1.0`, `isolate_id_ranges{state="held"} 1.0`,
		"isolate_id_ranges_limit 1.0", "isolate_lxcfs_up 0.0", "isolate_orphans 0.0",
	} {
		if text := h.isolatectl(t, "metrics").Must(t); !strings.Contains(text, metric+"\n") {
			t.Errorf("%s is not in %s", metric, text)
		}
	}
	for _, stage := range []string{"decide", "mount", "runtime", "settle"} {
		if text := h.isolatectl(t, "metrics").Must(t); !regexp.MustCompile(`(?m)^isolate_create_seconds\{stage="` + stage + `"\} 0\.\d+$`).MatchString(text) {
			t.Errorf("how long %s took is not in %s", stage, text)
		}
	}
	h.Ctr(t.Context(), "tasks", "resume", "a").Must(t)

	// What nobody undoes: the record, as if delete had never run. While the container
	// is there, nothing of it is taken for garbage.
	if r := h.isolatectl(t, "gc", "--delete"); r.Code != 0 || !strings.Contains(r.Stdout, "nothing is left") {
		t.Errorf("gc beside a container that runs: %+v", r)
	}
	file := "/run/isolate/default/a/record.json"
	record, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	killShim(t, "a")
	h.Container("a").Remove(t)
	rig.Eventually(t, "range free again", func() bool { return len(ids().Ranges) == 0 })
	rig.Eventually(t, "container forgotten", func() bool { return len(ps()) == 0 })
	rig.Eventually(t, "delete has ended", func() bool { _, err := os.Stat(filepath.Dir(file)); return err != nil })
	if err := os.MkdirAll(filepath.Dir(file), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, record, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"gc"}, 1, "--delete removes it"}, {[]string{"gc", "--delete"}, 0, "removed"}, {[]string{"gc"}, 0, "nothing is left"},
	} {
		if r := h.isolatectl(t, want.args...); r.Code != want.code || !strings.Contains(r.Stdout, want.text) {
			t.Errorf("isolatectl %v: %+v", want.args, r)
		}
	}
}
