// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"testing"
)

// TestAnnotationsJoinNobody: an annotation put a container into another one's user
// namespace, with its ids.
func TestAnnotationsJoinNobody(t *testing.T) {
	t.Parallel()
	const sandbox, kind = "io.kubernetes.cri.sandbox-id", "io.kubernetes.cri.container-type"
	cri := Pod{"k8s.io", "pod"}
	for _, tt := range []struct {
		name, namespace string
		annotations     map[string]string
		want            Pod
		drop            []string
	}{
		{"a container of a pod", "k8s.io", map[string]string{sandbox: "pod", kind: "container"}, cri, nil},
		{"in Docker's namespace", "moby", map[string]string{sandbox: "pod", kind: "container"}, Pod{}, []string{sandbox}},
		{"the id alone", "k8s.io", map[string]string{sandbox: "pod"}, Pod{}, []string{sandbox}},
		{"a sandbox with another's id", "k8s.io", map[string]string{sandbox: "pod", kind: "sandbox"}, Pod{}, []string{sandbox}},
		{"a sandbox", "k8s.io", map[string]string{sandbox: "self", kind: "sandbox"}, Pod{"k8s.io", "self"}, nil},
		{"a container of itself", "k8s.io", map[string]string{sandbox: "self", kind: "container"}, Pod{}, []string{sandbox}},
		{"no id", "k8s.io", map[string]string{sandbox: "", kind: "container"}, Pod{}, []string{sandbox}},
		{"another kind", "k8s.io", map[string]string{sandbox: "pod", kind: "virtual"}, Pod{}, []string{sandbox}},
		{"nothing", "k8s.io", nil, Pod{}, nil},
		{"a group", "default", map[string]string{GroupAnnotation: "pod"}, Pod{}, []string{GroupAnnotation}},
		{"a group in a pod", "k8s.io", map[string]string{GroupAnnotation: "g", sandbox: "pod", kind: "container"}, cri, []string{GroupAnnotation}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := PodOf(tt.namespace, "self", tt.annotations); got != tt.want {
				t.Errorf("pod is %v", got)
			}
			if got := Groups(tt.namespace, "self", tt.annotations, nil); !slices.Equal(got, tt.drop) {
				t.Errorf("dropped is %q", got)
			}
		})
	}
	if got := Groups("default", "self", map[string]string{GroupAnnotation: "g"}, []string{GroupAnnotation}); got != nil {
		t.Errorf("allowed, and dropped: %q", got)
	}
	for _, tt := range []struct {
		pod           Pod
		namespace, id string
		want          bool
	}{
		{cri, "k8s.io", "pod", true},
		{cri, "k8s.io", "other", false},
		{cri, "moby", "pod", false},
		{Pod{}, "moby", "other", true}, // docker run --network container:other
	} {
		if got := tt.pod.Admits(tt.namespace, tt.id); got != tt.want {
			t.Errorf("%v admits %s/%s: %v", tt.pod, tt.namespace, tt.id, got)
		}
	}
}
