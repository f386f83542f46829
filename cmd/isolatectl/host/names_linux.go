// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Named is what people call a container.
type Named struct {
	Name  string // "web"; of a pod "default/web/nginx"; "" if it has none but its id
	Image string
}

// dockerNamespace is where dockerd has its containers in containerd.
const dockerNamespace = "moby"

// nameTimeout bounds the question to one daemon.
const nameTimeout = 2 * time.Second

// Names asks the running containerds and dockerds for the names of the containers in
// some of containerd's namespaces, by namespace and id. What one of them does not
// answer is told beside the rest.
func Names(ctx context.Context, namespaces []string) (map[[2]string]Named, error) {
	names := map[[2]string]Named{}
	var errs []error
	for _, p := range Find("/proc", "containerd") {
		c, err := InspectContainerd(ctx, p)
		if p.Rootless || err != nil {
			continue // it has ended, or is another program of that name
		}
		for _, namespace := range namespaces {
			errs = append(errs, c.names(ctx, namespace, names))
		}
	}
	for _, p := range Find("/proc", "dockerd") {
		if p.Rootless || !IsDocker(ctx, p) {
			continue
		}
		d, err := InspectDocker(ctx, p)
		if err == nil {
			err = d.names(ctx, names)
		}
		errs = append(errs, err)
	}
	return names, errors.Join(errs...)
}

// names adds those of a namespace.
func (d Containerd) names(ctx context.Context, namespace string, to map[[2]string]Named) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace), nameTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	var answer containers.ListContainersResponse
	if err == nil {
		defer conn.Close()
		// By its name: the program is built without containerd's clients (no_grpc).
		err = conn.Invoke(ctx, "/containerd.services.containers.v1.Containers/List", &containers.ListContainersRequest{}, &answer)
	}
	if err != nil {
		return fmt.Errorf("ask containerd on %s for names: %w", d.Address, err)
	}
	for _, c := range answer.GetContainers() {
		to[[2]string{namespace, c.GetID()}] = Named{nameOf(c.GetLabels()), c.GetImage()}
	}
	return nil
}

// nameOf finds the name among the labels that a client gives a container.
func nameOf(labels map[string]string) string {
	if pod := labels["io.kubernetes.pod.name"]; pod != "" {
		return path.Join(labels["io.kubernetes.pod.namespace"], pod, labels["io.kubernetes.container.name"])
	}
	return labels["nerdctl/name"]
}

// names adds those of Docker's containers.
func (d Docker) names(ctx context.Context, to map[[2]string]Named) error {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	var list []struct {
		ID    string `json:"Id"`
		Names []string
		Image string
	}
	if err := d.get(ctx, "/containers/json?all=true", &list); err != nil {
		return err
	}
	for _, c := range list {
		key := [2]string{dockerNamespace, c.ID}
		n := Named{Image: cmp.Or(c.Image, to[key].Image)}
		if len(c.Names) > 0 {
			n.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		to[key] = n
	}
	return nil
}
