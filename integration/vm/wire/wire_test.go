// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
)

func TestFramesKeepOrderAndContent(t *testing.T) {
	t.Parallel()
	var stream bytes.Buffer
	frames := []struct {
		kind    Kind
		payload string
	}{
		{KindStarted, ""}, {KindStdout, "one\n"}, {KindStderr, "\x00\xff"}, {KindExit, "\x07"},
	}
	for _, f := range frames {
		if err := Write(&stream, f.kind, []byte(f.payload)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range frames {
		kind, payload, err := Read(&stream)
		if err != nil || kind != f.kind || string(payload) != f.payload {
			t.Errorf("got %d %q %v, want %d %q", kind, payload, err, f.kind, f.payload)
		}
	}
	if _, _, err := Read(&stream); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: got %v, want EOF", err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		stream string
		want   error
	}{
		{"half a header", "\x04\x00", io.ErrUnexpectedEOF},
		{"half a payload", "\x04\x00\x00\x00\x05abc", io.ErrUnexpectedEOF},
		{"a length out of bounds", "\x04\xff\xff\xff\xff", errTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := Read(bytes.NewReader([]byte(test.stream))); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestWriteRefusesLongPayload(t *testing.T) {
	t.Parallel()
	var stream bytes.Buffer
	if err := Write(&stream, KindStdout, make([]byte, MaxPayload+1)); !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want %v", err, errTooLong)
	}
	if stream.Len() != 0 {
		t.Errorf("sent %d bytes of a refused frame", stream.Len())
	}
}

func TestJobArrivesWhole(t *testing.T) {
	t.Parallel()
	want := Job{
		Argv: []string{"/tmp/a.test", "-test.v", "white space"}, Env: []string{"A=1\n2"}, Dir: "/", Cgroup: "v2",
		Systemd: true, Shares: []Share{{Tag: "share0", Path: "/srv"}}, Release: "6.12", Modules: "/m", Busybox: "/b",
	}
	var stream bytes.Buffer
	if err := SendJob(&stream, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReceiveJob(&stream)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x02ab"))
	f.Add([]byte("\x06\x00\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		kind, payload, err := Read(bytes.NewReader(stream))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := Write(&again, kind, payload); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(stream, again.Bytes()) {
			t.Errorf("%q read and written again is %q", stream, again.Bytes())
		}
	})
}
