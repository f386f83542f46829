// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestLoadOrder(t *testing.T) {
	t.Parallel()
	const dep = `kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko kernel/lib/crc16.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/net/9p/9pnet-virtio.ko: kernel/net/9p/9pnet.ko
kernel/net/9p/9pnet.ko:
`
	for _, test := range []struct {
		name  string
		names []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"what is built in", []string{"fuse"}, nil},
		{
			"each once, after what it needs",
			[]string{"jbd2", "ext4"},
			[]string{"kernel/lib/crc16.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/mbcache.ko", "kernel/fs/ext4/ext4.ko"},
		},
		{
			"a dash in the file is an underscore in the name",
			[]string{"9pnet_virtio"},
			[]string{"kernel/net/9p/9pnet.ko", "kernel/net/9p/9pnet-virtio.ko"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := loadOrder(dep, test.names)
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %q %v, want %q", got, err, test.want)
			}
		})
	}
	if _, err := loadOrder("no colon\n", nil); err == nil {
		t.Error("a line without a colon was accepted")
	}
}

func FuzzLoadOrder(f *testing.F) {
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "a")
	f.Add("x/a-b.ko.xz:\n", "a_b")
	f.Fuzz(func(t *testing.T, dep, name string) {
		order, err := loadOrder(dep, []string{name, name})
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, file := range order {
			if seen[file] {
				t.Errorf("%q is in %q twice", file, order)
			}
			seen[file] = true
		}
	})
}

func TestKeeps(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"net/bridge/bridge.ko.xz":           true,
		"drivers/net/veth.ko.xz":            true,
		"drivers/net/wireguard/wg.ko":       true,
		"drivers/net/ethernet/intel/e1k.ko": false,
		"drivers/gpu/drm/drm.ko":            false,
		"sound/soundcore.ko":                false,
		"fs/overlayfs/overlay.ko":           true,
		"fsx/x.ko":                          false,
	} {
		if got := keeps(keptModules, name); got != want {
			t.Errorf("keeps(%q) = %v, want %v", name, got, want)
		}
	}
}

// bzImage returns an image with the given payload.
func bzImage(content string) []byte {
	const sectors, offset = 2, 7
	image := make([]byte, (sectors+1)*sectorSize+offset)
	image[setupSectorsOffset] = sectors
	copy(image[bootMagicOffset:], "HdrS")
	binary.LittleEndian.PutUint16(image[bootVersionOffset:], 0x20f)
	binary.LittleEndian.PutUint32(image[payloadOffsetOffset:], offset)
	binary.LittleEndian.PutUint32(image[payloadLengthOffset:], uint32(len(content)))
	return append(append(image, content...), "trailer"...)
}

func TestPayload(t *testing.T) {
	t.Parallel()
	got, err := payload(bzImage("compressed"))
	if err != nil || string(got) != "compressed" {
		t.Errorf("got %q %v", got, err)
	}
	old := bzImage("compressed")
	binary.LittleEndian.PutUint16(old[bootVersionOffset:], 0x207)
	long := bzImage("compressed")
	binary.LittleEndian.PutUint32(long[payloadLengthOffset:], 1<<31)
	for name, image := range map[string][]byte{"empty": nil, "old protocol": old, "payload beyond the end": long} {
		if _, err := payload(image); !errors.Is(err, errNotBzImage) {
			t.Errorf("%s: got %v, want %v", name, err, errNotBzImage)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(bzImage("x"))
	f.Fuzz(func(t *testing.T, image []byte) {
		got, err := payload(image)
		if err == nil && !bytes.Contains(image, got) {
			t.Errorf("payload of %d bytes is not in the image", len(got))
		}
	})
}

// TestArchive has another program read what the kernel will.
func TestArchive(t *testing.T) {
	t.Parallel()
	content := archive([]entry{
		{name: "dev", mode: typeDirectory | 0o755},
		{name: "dev/console", mode: typeCharacter | 0o600, major: 5, minor: 1},
		{name: "init", mode: typeRegular | 0o755, content: []byte("odd")},
		{name: "last", mode: typeRegular | 0o644, content: []byte("content\n")},
	})
	requireMachine(t)
	parts, err := Prepare(t.Context(), Linux612)
	if err != nil {
		t.Fatal(err)
	}
	run := func(arguments ...string) string {
		command := exec.CommandContext(context.Background(), parts.tools.busybox(), append([]string{"cpio"}, arguments...)...)
		command.Stdin, command.Dir = bytes.NewReader(content), t.TempDir()
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	listing := strings.Fields(run("-tv"))
	for _, want := range []string{"drwxr-xr-x", "crw-------", "-rwxr-xr-x", "dev/console", "init", "last"} {
		if !slices.Contains(listing, want) {
			t.Errorf("%q is missing in %q", want, listing)
		}
	}
	if got := run("-i", "--to-stdout", "last"); got != "content\n" {
		t.Errorf("last file holds %q", got)
	}
}
