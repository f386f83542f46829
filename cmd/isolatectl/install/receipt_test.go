// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
)

func TestReceiptSurvivesItsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	none, locked, err := lockReceipt(dir)
	if err != nil || !reflect.DeepEqual(none, receipt{}) {
		t.Fatalf("%+v, %v where there is none", none, err)
	}
	if _, _, err := lockReceipt(dir); err == nil || !strings.Contains(err.Error(), "another isolatectl") {
		t.Errorf("locked twice: %v", err)
	}
	want := receipt{
		Version: receiptVersion, Isolate: "isolate v1",
		Files:       []file{{"/b/x", program, []string{"1", "2"}}},
		Directories: []string{"/b"}, Edit: &host.Edit{Path: "/c", Line: "l", Was: "w"},
		Address: "/a", Node: "n", Label: &Label{"k", "v"},
	}
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	if err := locked.Close(); err != nil {
		t.Fatal(err)
	}
	got, locked, err := lockReceipt(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if err := locked.Close(); err != nil {
		t.Error(err)
	}
}

func TestReceiptIsDoubted(t *testing.T) {
	t.Parallel()
	for text, part := range map[string]string{
		`{}`: "version 0", `{`: "decode", `[]`: "decode",
		`{"version":1,"files":[{"path":"etc/passwd"}]}`: "clean absolute path",
		`{"version":1,"files":[{"path":"/b/../x"}]}`:    "clean absolute path",
		`{"version":1,"directories":["/"]}`:             "clean absolute path",
		`{"version":1,"edit":{"path":"x"}}`:             "clean absolute path",
	} {
		if r, err := parseReceipt([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %+v, %v, want %q", text, r, err, part)
		}
	}
}

func TestReceiptOfLaterVersion(t *testing.T) {
	t.Parallel()
	r, err := parseReceipt([]byte(`{"version":2,"x":1,"files":[{"path":"/a","x":1}]}`))
	if err != nil || len(r.Files) != 1 || r.Files[0].Path != "/a" {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":[{"path":"/a","kind":"program","sums":["x"]}],"directories":["/a"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReceipt(data)
		if err != nil {
			return
		}
		for _, file := range r.Files {
			if !filepath.IsAbs(file.Path) || strings.Contains(file.Path, "/../") {
				t.Fatalf("accepted %q", file.Path)
			}
		}
	})
}
