// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/spec"
)

// TestAnnotationsJoinNobody proves that an annotation gives a container neither the
// user namespace and ids of another one, nor its shim.
func TestAnnotationsJoinNobody(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15)
	m.start(t, "victim", nil, "sleep", "1000")
	own := func(id string) (shim, userns string) {
		pid := m.pid(t, id)
		userns, err := os.Readlink("/proc/" + pid + "/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(text("/proc/"+pid+"/status"), "PPid:")
		return strings.Fields(rest)[0], userns
	}
	shim, userns := own("victim")
	for name, annotations := range map[string][]string{
		"pod":    {"io.kubernetes.cri.sandbox-id=victim", "io.kubernetes.cri.container-type=container"},
		"member": {"io.kubernetes.cri.sandbox-id=victim"},
		"group":  {"io.containerd.runc.v2.group=victim"},
	} {
		t.Run(name, func(t *testing.T) {
			var options []string
			for _, a := range annotations {
				options = append(options, "--annotation", a)
			}
			m.start(t, "guest", options, "sleep", "1000")
			if s, u := own("guest"); s == shim || u == userns {
				t.Errorf("the shim is %s and the user namespace %s, those of the victim are %s and %s", s, u, shim, userns)
			}
			m.Container("guest").Remove(t)
		})
	}
}

// TestAnnotationsThatRuntimesObey proves that no annotation tells crun what to do,
// unless it is allowed. The one that is tried makes a container fail if crun obeys
// it, for there is nobody at the socket.
func TestAnnotationsThatRuntimesObey(t *testing.T) {
	rig.Require(t, rig.Root)
	for allow, code := range map[string]int{"": 0, "run.oci.pidfd_receiver": 1} {
		m := demoMachine(t, peer.Crun121, "[annotations]\nallow = [\""+allow+"\"]")
		if allow == "" {
			m = demoMachine(t, peer.Crun121)
		}
		r := m.run(t, []string{"--annotation", "run.oci.pidfd_receiver=/nowhere/socket"}, "true")
		if r.Code != code {
			t.Errorf("allowed %q: status %d: %s", allow, r.Code, r.Stderr)
		}
		if warned := slices.ContainsFunc(m.warnings(t), func(w string) bool {
			return strings.Contains(w, `run.oci.pidfd_receiver\" was removed`)
		}); warned != (allow == "") {
			t.Errorf("allowed %q: warnings are %q", allow, m.warnings(t))
		}
		m.Container("a").Remove(t)
	}
}

// dotted finds names in the text of a program.
var dotted = regexp.MustCompile(`(?m)^(?:run|krun|org|io|com|module)\.[a-z0-9][a-zA-Z0-9._/-]*$`)

// noAnnotations are names in runtimes which are none that they obey.
var noAnnotations = regexp.MustCompile(`^(io\.(bfq\.weight|max|weight|github\.seccomp\..*)|io\.kubernetes\.cri\.container-type|` + // of a pod's sandbox, which crun does not run by wasm
	`org\.freedesktop\..*|org\.systI3|org\.opencontainers\.runc\..*|run\.oci\.crun\..*)$`) // of D-Bus; of what features prints

// TestObeyedAnnotationsAreKnown proves that isolate knows of every annotation which
// the runtimes obey: of those that they name, and of those in the text of crun. In
// runc, which is written in Go, strings have no end.
func TestObeyedAnnotationsAreKnown(t *testing.T) {
	var known []string
	for _, o := range spec.ObeyedAnnotations() {
		known = append(known, o.Name)
	}
	for _, name := range ociRuntimes {
		t.Run(string(name), func(t *testing.T) {
			p, err := peer.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			program, err := filepath.EvalSymlinks(p.Program(p.Programs()[0]))
			if err != nil {
				t.Fatal(err)
			}
			var f features.Features
			if r := rig.Exec(t.Context(), program, "features"); r.Code == 0 {
				if err := json.Unmarshal([]byte(r.Stdout), &f); err != nil {
					t.Fatal(err)
				}
				if len(f.PotentiallyUnsafeConfigAnnotations) == 0 && name != peer.Runc11 {
					t.Error("features names no annotation")
				}
			}
			found := f.PotentiallyUnsafeConfigAnnotations
			data := text(programText(t, program))
			if strings.HasPrefix(string(name), "crun") {
				strung := strings.Join(strings.FieldsFunc(data, func(r rune) bool { return r < ' ' || r > '~' }), "\n")
				found = append(found, dotted.FindAllString(strung, -1)...)
				if len(found) < 10 {
					t.Errorf("only %q", found)
				}
			}
			for _, o := range found {
				if !slices.Contains(known, o) && !noAnnotations.MatchString(o) {
					t.Errorf("nobody knows %q: put it into the table of package spec", o)
				}
			}
			if strings.HasPrefix(string(name), "runc") {
				for _, prefix := range []string{"org.systemd.property.", "org.criu.config"} {
					if !bytes.Contains([]byte(data), []byte(prefix)) {
						t.Errorf("it does not have %q any more", prefix)
					}
				}
			}
		})
	}
}

// programText is the file of a program: peers may be started by a script beside it.
func programText(t *testing.T, path string) string {
	t.Helper()
	if strings.HasPrefix(text(path), "\x7fELF") {
		return path
	}
	for line := range strings.Lines(text(path)) {
		for _, word := range strings.Fields(line) {
			if word = strings.Trim(word, `"'`); filepath.IsAbs(word) && strings.HasPrefix(text(word), "\x7fELF") && !strings.Contains(word, "ld-linux") {
				return word
			}
		}
	}
	t.Fatalf("%s is no program", path)
	return ""
}
