// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestShimObject compares the object of runtime-class-manager with the archives that it
// names. What its downloader does with them: it compares the checksum, unpacks, and takes
// the file containerd-shim-NAME (images/downloader/download_shim.sh there).
func TestShimObject(t *testing.T) {
	rig.Require(t, rig.Root)
	dist, files := built(t, "isolate-shim-*.yaml")
	object, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?m)^  name: (.*)$`).FindSubmatch(object)[1]
	if handler := regexp.MustCompile(`(?m)^    handler: (.*)$`).FindSubmatch(object)[1]; !bytes.Equal(handler, name) {
		t.Errorf("handler %s, and the manager calls it %s", handler, name)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, found := range regexp.MustCompile(`arch: (.*)\n +location: https://(.*)\n +sha256: (.*)\n`).FindAllSubmatch(object, -1) {
		arch, location, sum := string(found[1]), string(found[2]), string(found[3])
		archive, err := os.ReadFile(filepath.Join(dist, path.Base(location)))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(archive)); got != sum {
			t.Errorf("%s: checksum %s, archive %s", arch, sum, got)
		}
		unpacked, err := gzip.NewReader(bytes.NewReader(archive))
		if err != nil {
			t.Fatal(err)
		}
		content := tar.NewReader(unpacked)
		header, err := content.Next()
		if err != nil || header.Name != "containerd-shim-"+string(name) || header.Mode != 0o755 {
			t.Fatalf("%s: %+v, %v", arch, header, err)
		}
		program, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if file, err := elf.NewFile(bytes.NewReader(program)); err != nil || file.Machine != machines[arch] {
			t.Errorf("%s: a program for %v, %v", arch, file.Machine, err)
		}
		delete(machines, arch)
	}
	if len(machines) > 0 {
		t.Errorf("nothing for %v in:\n%s", machines, object)
	}
}
