// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestPremountedValid(t *testing.T) {
	t.Parallel()
	good := Premounted{Path: "/d/merged", Source: "isolate-x", Options: []string{"lowerdir=/a"}}
	if err := good.valid(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Premounted{
		{Path: "relative", Source: "isolate-x"},
		{Path: "/a/../b", Source: "isolate-x"},
		{Source: "isolate-x"},
		{Path: "/d", Source: "overlay"},
		{Path: "/d", Source: "isolate-x", Dir: "relative"},
	} {
		if err := bad.valid(); err == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

// TestRecordsOfEarlierVersions: containers outlive an upgrade and a rollback, so the key
// stays what it was.
func TestRecordsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	const data = `{"version":1,"namespace":"moby","id":"c1","bundle":"/b","mode":"own","mapping":{"uids":null,"gids":null},"rootfs":true,"directory":true,` +
		`"handed":{"path":"/d/merged","source":"isolate-abc","was":"overlay","dir":"/d","options":["lowerdir=l","upperdir=u","workdir=w"]},"runtime":{"path":"/runc"}}`
	r, err := Parse([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	want := &Premounted{Path: "/d/merged", Source: "isolate-abc", Was: "overlay", Dir: "/d", Options: []string{"lowerdir=l", "upperdir=u", "workdir=w"}}
	if !reflect.DeepEqual(r.Premounted, want) {
		t.Errorf("got %+v, want %+v", r.Premounted, want)
	}
	again, err := json.Marshal(r)
	if err != nil || string(again) != data {
		t.Errorf("written as %s, %v", again, err)
	}
}
