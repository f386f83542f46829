// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// account is a pod's view of an API server.
func account(t *testing.T, server *httptest.Server) (getenv func(string) string, dir string) {
	t.Helper()
	dir = t.TempDir()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, text := range map[string]string{"token": "secret\n", "ca.crt": string(authority)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": address.Hostname(), "KUBERNETES_SERVICE_PORT": address.Port()}[name]
	}, dir
}

func TestSetLabel(t *testing.T) {
	t.Parallel()
	var got []string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Authorization")+" "+string(body))
		if strings.HasSuffix(r.URL.Path, "/forbidden") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind":"Status","message":"nodes is forbidden"}`)
		}
	}))
	t.Cleanup(server.Close)
	getenv, dir := account(t, server)
	node, err := inCluster("n1", getenv, dir)
	if err != nil {
		t.Fatal(err)
	}
	value := "true"
	for _, v := range []*string{&value, nil} {
		if err := node.setLabel(t.Context(), "example/ready", v); err != nil {
			t.Fatal(err)
		}
	}
	const head = "PATCH /api/v1/nodes/n1 application/merge-patch+json Bearer secret "
	want := []string{head + `{"metadata":{"labels":{"example/ready":"true"}}}`, head + `{"metadata":{"labels":{"example/ready":null}}}`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
	node.Name = "forbidden"
	if err := node.setLabel(t.Context(), "k", nil); err == nil || !strings.Contains(err.Error(), `node "forbidden": 403 Forbidden: nodes is forbidden`) {
		t.Errorf("got %v", err)
	}
}

func TestInClusterRefuses(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	getenv, dir := account(t, server)
	if _, err := inCluster("n", func(string) string { return "" }, dir); err == nil || !strings.Contains(err.Error(), "not in a pod") {
		t.Errorf("got %v", err)
	}
	if _, err := inCluster("n", getenv, t.TempDir()); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := inCluster("n", getenv, dir); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("got %v", err)
	}
}
