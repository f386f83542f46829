// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"strings"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestOptionsOfContainerd17 reads what ctr --uidmap of containerd 1.7 sends to a
// runtime that is not called io.containerd.runc.
func TestOptionsOfContainerd17(t *testing.T) {
	t.Parallel()
	var wire []byte
	number := func(n protowire.Number, v uint64) {
		wire = protowire.AppendVarint(protowire.AppendTag(wire, n, protowire.VarintType), v)
	}
	text := func(n protowire.Number, s string) {
		wire = protowire.AppendString(protowire.AppendTag(wire, n, protowire.BytesType), s)
	}
	number(1, 1) // no_pivot_root
	number(4, 1) // terminal
	text(6, "network")
	text(7, "soft")
	number(8, 1) // no_new_keyring
	text(9, "/shim")
	number(10, 100000)
	number(11, 200000)
	text(12, "/work")
	text(13, "/image")
	number(99, 5)
	in := &anypb.Any{TypeUrl: createName, Value: wire}
	got, err := normalise(in)
	if err != nil {
		t.Fatal(err)
	}
	want := &runcoptions.Options{
		NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shim", IoUid: 100000, IoGid: 200000,
		CriuWorkPath: "/work", CriuImagePath: "/image",
	}
	if !proto.Equal(got.Runc, want) || got.ConfigName != "" {
		t.Errorf("got %v", got)
	}
	for cut := range wire {
		_, err := normalise(&anypb.Any{TypeUrl: "types.containerd.io/" + createName, Value: wire[:cut]})
		if err != nil && (!errors.Is(err, errUnknown) || !strings.Contains(err.Error(), createName)) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if _, err := normalise(&anypb.Any{TypeUrl: createName, Value: []byte("\xff\xff\xff")}); !errors.Is(err, errUnknown) {
		t.Errorf("garbage: %v", err)
	}
}

func FuzzCreateOptions(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x08\x01\x4a\x02ab\x50\x05"))
	f.Fuzz(func(t *testing.T, value []byte) {
		res, err := fromCreate(&anypb.Any{TypeUrl: createName, Value: value})
		if err != nil && !errors.Is(err, errUnknown) || err == nil && res.Runc == nil {
			t.Errorf("%v, %v", res, err)
		}
	})
}
