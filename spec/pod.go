// SPDX-License-Identifier: Apache-2.0

package spec

// The annotations by which containerd's CRI plugin says what a container is
// (internal/cri/annotations), and the containerd namespace that it works in.
const (
	SandboxAnnotation = "io.kubernetes.cri.sandbox-id"
	typeAnnotation    = "io.kubernetes.cri.container-type"
	criNamespace      = "k8s.io"
)

// Pod names the sandbox of a pod: a container, by the containerd namespace and its
// id. The zero value is no pod.
type Pod struct{ Namespace, Sandbox string }

// PodOf returns the pod that a container belongs to, or whose sandbox it is, as far
// as its annotations say so.
//
// Any client can set annotations, Docker's by a flag. They count in the CRI's own
// namespace only, where it sets them itself, and only if both fit together. Even
// then they give nothing: a container joins a sandbox by a namespace of it that its
// spec joins by path, which a client that chooses annotations alone cannot do; see
// Pod.Admits.
func PodOf(namespace, id string, annotations map[string]string) Pod {
	sandbox := annotations[SandboxAnnotation]
	var fits bool
	switch annotations[typeAnnotation] {
	case "sandbox":
		fits = sandbox == id
	case "container":
		fits = sandbox != id
	}
	if namespace != criNamespace || sandbox == "" || !fits {
		return Pod{}
	}
	return Pod{namespace, sandbox}
}

// Admits tells whether a container, whose spec joins a namespace of another one by
// path, is to join its user namespace as well. A container of a pod joins its own
// sandbox only. A container that is in no pod joins the one that its engine names
// (docker run --network container:other).
func (p Pod) Admits(namespace, id string) bool { return p == Pod{} || p == Pod{namespace, id} }

// Groups tells whether annotations may decide which shim a container is in. Containers
// in one shim share a process, and a container can do little to that process. But what
// costs the shim time or memory costs its other containers. So annotations decide for
// pods, and for the groups that the administrator allows.
func Groups(namespace, id string, annotations map[string]string, allow []string) (drop []string) {
	if _, there := annotations[GroupAnnotation]; there && !named(GroupAnnotation, allow) {
		drop = append(drop, GroupAnnotation)
	}
	if _, there := annotations[SandboxAnnotation]; there && PodOf(namespace, id, annotations) == (Pod{}) {
		drop = append(drop, SandboxAnnotation)
	}
	return drop
}
