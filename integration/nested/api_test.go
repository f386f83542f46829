// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// object is one of the Kubernetes API.
type object map[string]any

// apiServer stands for an API server, on the node: it lists and watches what the
// test puts in. The real one takes minutes to build; see TestCluster.
type apiServer struct {
	address string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
	objects map[string]map[string]object
	events  []event
}

// event is a change; its number plus one is the version of what it changed.
type event struct {
	path   string
	name   string
	Type   string `json:"type"`
	Object object `json:"object"`
}

// kinds are the resources that are served, by their paths.
var kinds = map[string]struct{ version, kind string }{
	"/api/v1/services": {"v1", "Service"},
	"/api/v1/nodes":    {"v1", "Node"},
	"/apis/discovery.k8s.io/v1/endpointslices":     {"discovery.k8s.io/v1", "EndpointSlice"},
	"/apis/networking.k8s.io/v1/servicecidrs":      {"networking.k8s.io/v1", "ServiceCIDR"},
	"/apis/events.k8s.io/v1/namespaces/*/events":   {"events.k8s.io/v1", "Event"},
	"/apis/events.k8s.io/v1/namespaces/*/events/*": {"events.k8s.io/v1", "Event"},
}

func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	listener, err := net.Listen("tcp", "10.88.70.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &apiServer{address: "http://" + listener.Addr().String(), changed: make(chan struct{}), objects: map[string]map[string]object{}}
	server := &http.Server{Handler: a}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// put makes or changes an object; take takes it away.
func (a *apiServer) put(resource, namespace, name string, o object) {
	a.change(resource, namespace, name, o, "ADDED", "MODIFIED")
}

func (a *apiServer) take(resource, namespace, name string) {
	a.change(resource, namespace, name, nil, "", "DELETED")
}

func (a *apiServer) change(resource, namespace, name string, o object, added, modified string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kind := added
	old, ok := a.objects[resource][name]
	if ok {
		kind = modified
	}
	if o == nil {
		o = old
		delete(a.objects[resource], name)
	}
	o = maps.Clone(o)
	metadata := object{"name": name, "namespace": namespace, "uid": "uid-" + name, "resourceVersion": strconv.Itoa(len(a.events) + 1)}
	if labels, ok := o["metadata"].(object); ok {
		maps.Copy(metadata, labels)
		metadata["resourceVersion"] = strconv.Itoa(len(a.events) + 1)
	}
	o["metadata"], o["apiVersion"], o["kind"] = metadata, kinds[resource].version, kinds[resource].kind
	if kind != "DELETED" {
		if a.objects[resource] == nil {
			a.objects[resource] = map[string]object{}
		}
		a.objects[resource][name] = o
	}
	a.events = append(a.events, event{path: resource, name: name, Type: kind, Object: o})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	resource, name := r.URL.Path, ""
	if _, ok := kinds[resource]; !ok {
		resource, name = path.Split(resource)
		resource = strings.TrimSuffix(resource, "/")
	}
	kind, ok := kinds[resource]
	switch {
	case r.Method != http.MethodGet: // an event; whoever sends it does not look
		w.WriteHeader(http.StatusCreated)
		reply(w, object{"kind": "Event", "apiVersion": "events.k8s.io/v1"})
		return
	case !ok:
		a.fail(w)
		return
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if name != "" {
		if o, ok := a.objects[resource][name]; ok {
			reply(w, o)
			return
		}
		a.fail(w)
		return
	}
	reply(w, object{
		"kind": kind.kind + "List", "apiVersion": kind.version,
		"metadata": object{"resourceVersion": strconv.Itoa(len(a.events))},
		"items":    slices.AppendSeq([]object{}, maps.Values(a.objects[resource])),
	})
}

// reply answers a client, which may be gone.
func reply(w http.ResponseWriter, o object) {
	_ = json.NewEncoder(w).Encode(o)
}

func (a *apiServer) fail(w http.ResponseWriter) {
	w.WriteHeader(http.StatusNotFound)
	reply(w, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound})
}

// watch sends changes as they come, after those that the client has not seen. A
// client that asks for what there is in the same stream is told where that ends.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string) {
	query := r.URL.Query()
	seen, _ := strconv.Atoi(query.Get("resourceVersion")) // 0 if there is none
	field, only, _ := strings.Cut(query.Get("fieldSelector"), "=")
	encoder, controller := json.NewEncoder(w), http.NewResponseController(w)
	initial := query.Get("sendInitialEvents") == "true"
	for {
		a.mu.Lock()
		events, changed := a.events[seen:], a.changed
		if initial {
			seen, events = len(a.events), nil
			for name, o := range a.objects[resource] {
				events = append(events, event{path: resource, name: name, Type: "ADDED", Object: o})
			}
			events = append(events, event{path: resource, Type: "BOOKMARK", Object: object{
				"kind": kinds[resource].kind, "apiVersion": kinds[resource].version,
				"metadata": object{"resourceVersion": strconv.Itoa(seen), "annotations": object{"k8s.io/initial-events-end": "true"}},
			}})
			initial = false
		} else {
			seen = len(a.events)
		}
		a.mu.Unlock()
		for _, e := range events {
			if e.path != resource || field == "metadata.name" && e.Type != "BOOKMARK" && e.name != only {
				continue
			}
			if encoder.Encode(e) != nil {
				return
			}
		}
		if controller.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}
