// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/isolate-shim/isolate/integration/image"
)

// standIn is an image that is asked for by a name which is not its own.
type standIn struct {
	reference string // without a registry: REPOSITORY:TAG
	image     image.Name
	user      string
	argv      []string // the image's own if empty
}

// standIns are all that critest pulls. Those of different repositories differ, by
// a label.
var standIns = []standIn{
	{reference: "e2e-test-images/busybox:1.29-2", image: image.Busybox},
	{reference: "e2e-test-images/nginx:1.14-2", image: image.Nginx},
	{reference: "e2e-test-images/httpd:2.4.39-4", image: image.Nginx, argv: []string{"sh", "-c", "echo httpd; exec nginx"}},
	{reference: "e2e-test-images/nonewprivs:1.3", image: image.Nginx, argv: []string{"sh", "-c", `echo "Effective uid: $(suid-id -u)"`}},
	{reference: "k8s-staging-cri-tools/hostnet-nginx-amd64:latest", image: image.Nginx, argv: []string{"nginx", "-c", "/etc/nginx/hostnet.conf"}},
	{reference: "k8s-staging-cri-tools/hostnet-nginx-arm64:latest", image: image.Nginx, argv: []string{"nginx", "-c", "/etc/nginx/hostnet.conf"}},
	{reference: "k8s-staging-cri-tools/test-image-user-uid:latest", image: image.Busybox, user: "1002"},
	{reference: "k8s-staging-cri-tools/test-image-user-username:latest", image: image.Busybox, user: "www-data"},
	{reference: "k8s-staging-cri-tools/test-image-user-uid-group:latest", image: image.Busybox, user: "1003:www-data"},
	{reference: "k8s-staging-cri-tools/test-image-user-username-group:latest", image: image.Busybox, user: "www-data:100"},
	{reference: "k8s-staging-cri-tools/test-image-predefined-group:latest", image: image.Busybox, user: "1000"},
	{reference: "k8s-staging-cri-tools/test-image-latest:latest", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-tag:test", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-tag:all", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-1:latest", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-2:latest", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-3:latest", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-tags:1", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-tags:2", image: image.Pause},
	{reference: "k8s-staging-cri-tools/test-image-tags:3", image: image.Pause},
	{reference: "pause:3.9", image: image.Pause},
	// And what the documentation pulls.
	{reference: "library/busybox:1", image: image.Busybox},
	{reference: "library/debian:12", image: image.Demo},
}

// registry serves images over HTTP, of the OCI distribution specification what a
// client needs to pull.
type registry struct {
	dir       string                        // blobs by digest
	manifests map[string]ocispec.Descriptor // by REPOSITORY:TAG
}

// serveRegistry starts a registry with the stand-ins on the rig's loopback. It
// returns the directory by which clients take it for every other registry, and
// the lines by which containerd does.
func serveRegistry(t *testing.T) (hosts, config string) {
	t.Helper()
	r := &registry{dir: t.TempDir(), manifests: map[string]ocispec.Descriptor{}}
	unpacked := map[image.Name]ocispec.Manifest{}
	for _, s := range standIns {
		manifest, ok := unpacked[s.image]
		if !ok {
			var err error
			if manifest, err = r.unpack(t, s.image); err != nil {
				t.Fatal(err)
			}
			unpacked[s.image] = manifest
		}
		if err := r.add(s, manifest); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewUnstartedServer(r)
	var err error
	if server.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	hosts = t.TempDir()
	text := fmt.Sprintf("[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", server.URL)
	file := filepath.Join(hosts, "_default", "hosts.toml")
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return hosts, fmt.Sprintf("[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = %q\n", hosts)
}

// unpack takes the blobs out of an image's archive.
func (r *registry) unpack(t *testing.T, name image.Name) (manifest ocispec.Manifest, err error) {
	i, err := image.Get(t.Context(), name)
	if err != nil {
		return manifest, err
	}
	file, err := os.Open(i.Path)
	if err != nil {
		return manifest, err
	}
	defer file.Close()
	var index ocispec.Index
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return manifest, fmt.Errorf("read %q: %w", i.Path, err)
		}
		if header.Name == ocispec.ImageIndexFile {
			if err := json.NewDecoder(archive).Decode(&index); err != nil {
				return manifest, fmt.Errorf("read index of %q: %w", i.Path, err)
			}
		}
		if hex, ok := strings.CutPrefix(header.Name, "blobs/sha256/"); ok && header.Typeflag == tar.TypeReg {
			blob, err := os.OpenFile(filepath.Join(r.dir, hex), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644) //nolint:gosec // an archive of our own making
			if err != nil {
				return manifest, err
			}
			if _, err := io.Copy(blob, archive); err != nil { //nolint:gosec // as above
				return manifest, err
			}
			if err := blob.Close(); err != nil {
				return manifest, err
			}
		}
	}
	if len(index.Manifests) != 1 {
		return manifest, fmt.Errorf("archive %q has %d manifests", i.Path, len(index.Manifests))
	}
	return manifest, r.decode(index.Manifests[0].Digest, &manifest)
}

// add makes an image out of another one's layers.
func (r *registry) add(s standIn, manifest ocispec.Manifest) error {
	var config ocispec.Image
	if err := r.decode(manifest.Config.Digest, &config); err != nil {
		return err
	}
	repository, _, _ := strings.Cut(s.reference, ":")
	config.Config.User = s.user
	config.Config.Labels = map[string]string{"stand-in": repository}
	if len(s.argv) > 0 {
		config.Config.Entrypoint, config.Config.Cmd = nil, s.argv
	}
	var err error
	if manifest.Config, err = r.encode(ocispec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	manifest.MediaType = ocispec.MediaTypeImageManifest
	r.manifests[s.reference], err = r.encode(manifest.MediaType, manifest)
	return err
}

func (r *registry) path(d digest.Digest) string {
	return filepath.Join(r.dir, filepath.Base(d.Encoded()))
}

func (r *registry) decode(d digest.Digest, value any) error {
	text, err := os.ReadFile(r.path(d))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}

func (r *registry) encode(mediaType string, value any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return d, os.WriteFile(r.path(d.Digest), text, 0o644)
}

// ServeHTTP answers /v2/, /v2/REPOSITORY/manifests/TAG-OR-DIGEST and
// /v2/REPOSITORY/blobs/DIGEST.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	path, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if ok && path == "" {
		return
	}
	var found ocispec.Descriptor
	if repository, reference, cut := strings.Cut(path, "/manifests/"); cut {
		for name, d := range r.manifests {
			if name == repository+":"+reference || d.Digest.String() == reference {
				found = d
			}
		}
	} else if _, reference, cut := strings.Cut(path, "/blobs/"); cut {
		found = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.Digest(reference)}
	}
	if found.Digest.Validate() != nil {
		http.NotFound(w, q)
		return
	}
	file, err := os.Open(r.path(found.Digest))
	if err != nil {
		http.NotFound(w, q)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", found.MediaType)
	w.Header().Set("Docker-Content-Digest", found.Digest.String())
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	if q.Method != http.MethodHead {
		_, _ = io.Copy(w, file) // a client may go away
	}
}
