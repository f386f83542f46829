// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestReadOptions(t *testing.T) {
	t.Parallel()
	sent := &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: marshal(t, &runcoptions.Options{Root: "/r"})}
	broken := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		in   io.Reader
		want *anypb.Any
		err  string
	}{
		{"nothing", strings.NewReader(""), nil, ""},
		{"white space", strings.NewReader(" \n"), nil, ""},
		{"options", strings.NewReader(string(marshal(t, sent))), sent, ""},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(string(marshal(t, sent)))), sent, ""},
		{"garbage", strings.NewReader("\xff\xff\xff"), nil, "not a protobuf Any"},
		{"unreadable", iotest.ErrReader(broken), nil, "broken pipe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := readOptions(c.in)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || (got == nil) != (c.want == nil) || got != nil && !proto.Equal(got, c.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func FuzzReadOptions(f *testing.F) {
	f.Add("")
	f.Add("\x0a\x01a\x12\x01b")
	f.Fuzz(func(t *testing.T, input string) {
		got, err := readOptions(strings.NewReader(input))
		if err != nil && got != nil {
			t.Errorf("both %v and %v", got, err)
		}
	})
}
