// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accountDir is where a pod finds the credentials of its service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Node is a Kubernetes node, as seen by a pod that may change its labels. It is
// the whole client that is needed: one request.
type Node struct {
	Name   string
	url    string
	token  string
	client *http.Client
}

// InCluster returns a node by the credentials of the pod that this runs in.
func InCluster(name string) (*Node, error) { return inCluster(name, os.Getenv, accountDir) }

func inCluster(name string, getenv func(string) string, dir string) (*Node, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("label node: not in a pod (no KUBERNETES_SERVICE_HOST): leave --node away, and use kubectl label node")
	}
	token, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		return nil, fmt.Errorf("label node: read credentials: %w", err)
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("label node: read credentials: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("label node: %s holds no certificate", filepath.Join(dir, "ca.crt"))
	}
	return &Node{
		Name: name, url: "https://" + net.JoinHostPort(host, port), token: strings.TrimSpace(string(token)),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}},
	}, nil
}

// setLabel sets a label; nil removes it.
func (n *Node) setLabel(ctx context.Context, key string, value *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]*string{key: value}}})
	if err != nil {
		return fmt.Errorf("label node %q: %w", n.Name, err)
	}
	target := n.url + "/api/v1/nodes/" + url.PathEscape(n.Name)
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, target, bytes.NewReader(patch))
	if err != nil {
		return fmt.Errorf("label node %q: %w", n.Name, err)
	}
	request.Header.Set("Authorization", "Bearer "+n.token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	request.Header.Set("Accept", "application/json")
	response, err := n.client.Do(request)
	if err != nil {
		return fmt.Errorf("label node %q: %w", n.Name, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("label node %q: %w", n.Name, err)
	}
	if response.StatusCode == http.StatusOK {
		return nil
	}
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &status) != nil || status.Message == "" {
		status.Message = "no reason given"
	}
	return fmt.Errorf("label node %q: %s: %s", n.Name, response.Status, status.Message)
}
