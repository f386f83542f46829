// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/isolate-shim/isolate/shim/record"
)

var update = flag.Bool("update", false, "rewrite golden files")

func host() Snapshot {
	up, none := true, 0
	return Snapshot{
		Version: "v0.1.0", Revision: "abc", Degraded: 1, Limit: 4094, LxcfsUp: &up, Orphans: &none,
		Containers: map[Kind]int{{"runc 1.5.0", "mounted", "own", "running"}: 3, {"crun 1.21", "replaced", "own", "paused"}: 1},
		Ranges:     map[string]int{"held": 4, "adopted": 2},
		Stages:     []record.Stages{{{Name: "mount", Took: 3e6}, {Name: "runtime", Took: 31e6}}, nil, {{Name: "mount", Took: 1e6}}, {{Name: "mount", Took: 2e6}}},
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	if err := host().Write(&got); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got.String() != string(want) {
		t.Errorf("%v; got\n%s\nwant\n%s", err, got.String(), want)
	}
	// The textfile collector reads it with this parser.
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(got.Bytes()))
	if err != nil || len(families) != len(host().families()) {
		t.Errorf("the older format has %d families, %v", len(families), err)
	}
	var little bytes.Buffer
	if err := (Snapshot{}).Write(&little); err != nil || strings.Contains(little.String(), "lxcfs") || strings.Contains(little.String(), "orphans") {
		t.Errorf("what is not known is told: %s, %v", little.String(), err)
	}
}

// The page for users has each metric, and no other.
func TestEachMetricIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range host().families() {
		if n++; !strings.Contains(string(page), "| `"+f.name+"` |") {
			t.Errorf("%s is not in the table of docs/metrics.md", f.name)
		}
	}
	if rows := strings.Count(string(page), "\n| `isolate_"); rows != n {
		t.Errorf("docs/metrics.md has %d metrics, there are %d", rows, n)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":9469", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "localhost", "example.org:80"} {
		if l, err := Listen(t.Context(), address); err == nil || !strings.Contains(err.Error(), "127.0.0.1:PORT") {
			t.Errorf("%s: %v, %v", address, l, err)
		}
	}
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var fail error
	go func() { ended <- Serve(ctx, l, func(context.Context) (Snapshot, error) { return host(), fail }) }()
	get := func(path string) (int, string, string) {
		t.Helper()
		r, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, r.Header.Get("Content-Type"), string(body)
	}
	if code, kind, body := get("/metrics"); code != http.StatusOK || kind != ContentType || !strings.Contains(body, "isolate_id_ranges_limit 4094") {
		t.Errorf("%d %s %s", code, kind, body)
	}
	if code, _, _ := get("/"); code != http.StatusNotFound {
		t.Errorf("/: %d", code)
	}
	fail = errors.New("no configuration")
	if code, _, body := get("/metrics"); code != http.StatusInternalServerError || !strings.Contains(body, "no configuration") {
		t.Errorf("%d %s", code, body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
