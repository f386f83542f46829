// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// raw passes messages of gRPC as they are.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("marshal %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("unmarshal %T", v)
	}
	*b = data.Materialize()
	return nil
}

func (raw) Name() string { return "proto" }

var _ encoding.CodecV2 = raw{}

// submessages returns the fields with a number of a message.
func submessages(t testing.TB, message []byte, want protowire.Number) (list [][]byte) {
	t.Helper()
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		if value := message[n : n+size]; number == want {
			if kind == protowire.BytesType {
				value, _ = protowire.ConsumeBytes(value)
			}
			list = append(list, value)
		}
		message = message[n+size:]
	}
	return list
}

// TestCRIFeatures asks the Kubernetes interface what the kubelet asks: whether
// the handler takes pods with hostUsers: false. The answer is read field by field
// (k8s.io/cri-api, runtime/v1, StatusResponse), for want of another use of its
// definitions here.
func TestCRIFeatures(t *testing.T) {
	for _, containerd := range []peer.Name{peer.Containerd24, peer.Containerd22} {
		for _, runtime := range []peer.Name{peer.Runc15, peer.Crun18} {
			t.Run(string(containerd)+"/"+string(runtime), func(t *testing.T) {
				rig.Require(t, rig.Root)
				node := rig.Containerd(t, rig.Config{
					Containerd: containerd, Runc: runtime, Isolate: true, CRI: true,
					TOML: "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.isolate]\nruntime_type = \"" + shimName + "\"\n",
				})
				var answer []byte
				err := dialNode(t, node.Address).Invoke(t.Context(), "/runtime.v1.RuntimeService/Status", []byte{}, &answer, grpc.ForceCodecV2(raw{}))
				if err != nil {
					t.Fatal(err)
				}
				userns := map[string]bool{}
				for _, handler := range submessages(t, answer, 3) {
					name := ""
					for _, text := range submessages(t, handler, 1) {
						name = string(text)
					}
					userns[name] = false
					for _, features := range submessages(t, handler, 2) {
						for _, value := range submessages(t, features, 2) {
							v, _ := protowire.ConsumeVarint(value)
							userns[name] = v == 1
						}
					}
				}
				if !userns["isolate"] {
					t.Errorf("handlers with user namespaces: %v", userns)
				}
			})
		}
	}
}
