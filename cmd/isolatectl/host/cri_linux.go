// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// HandlerState is what the Kubernetes interface says of a handler.
type HandlerState struct {
	Known bool
	// UserNamespaces tells that it takes pods with hostUsers: false. containerd 1.7
	// does not say.
	UserNamespaces bool
}

// AskHandler asks the Kubernetes interface at an address for a handler.
func AskHandler(ctx context.Context, address, name string) (HandlerState, error) {
	var state HandlerState
	err := call(ctx, address, func(ctx context.Context, client cri.RuntimeServiceClient) error {
		answer, err := client.Status(ctx, &cri.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		for _, h := range answer.GetRuntimeHandlers() {
			if h.GetName() == name {
				state = HandlerState{Known: true, UserNamespaces: h.GetFeatures().GetUserNamespaces()}
			}
		}
		if len(answer.GetRuntimeHandlers()) > 0 {
			return nil
		}
		// containerd 1.7 shows its handlers among its settings only.
		var config struct {
			Containerd struct {
				Runtimes map[string]json.RawMessage `json:"runtimes"`
			} `json:"containerd"`
		}
		if err := json.Unmarshal([]byte(answer.GetInfo()["config"]), &config); err != nil {
			return fmt.Errorf("read its settings: %w", err)
		}
		_, state.Known = config.Containerd.Runtimes[name]
		return nil
	})
	return state, err
}

// Pods names the sandboxes and containers of pods by their ids, for messages.
func Pods(ctx context.Context, address string) (map[string]string, error) {
	names := map[string]string{}
	err := call(ctx, address, func(ctx context.Context, client cri.RuntimeServiceClient) error {
		sandboxes, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		for _, s := range sandboxes.GetItems() {
			names[s.GetId()] = "pod " + s.GetMetadata().GetNamespace() + "/" + s.GetMetadata().GetName()
		}
		containers, err := client.ListContainers(ctx, &cri.ListContainersRequest{})
		if err != nil {
			return err
		}
		for _, c := range containers.GetContainers() {
			if pod, ok := names[c.GetPodSandboxId()]; ok {
				names[c.GetId()] = pod
			}
		}
		return nil
	})
	return names, err
}

// CgroupDriver is the cgroup driver that containerd tells the kubelet, "" if it
// does not, as before 2.0.
func CgroupDriver(ctx context.Context, address string) string {
	driver := ""
	err := call(ctx, address, func(ctx context.Context, client cri.RuntimeServiceClient) error {
		answer, err := client.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
		if linux := answer.GetLinux(); linux != nil {
			driver = strings.ToLower(linux.GetCgroupDriver().String())
		}
		return err
	})
	if err != nil {
		return ""
	}
	return driver
}

// HasKubelet tells whether a kubelet runs here, or a program that has one in it.
func HasKubelet() bool {
	return len(Find("/proc", "kubelet", "k3s-server", "k3s-agent", "kubelite")) > 0
}

// AwaitHandler waits until a handler is known, or is not any more.
func AwaitHandler(ctx context.Context, address, name string, known bool) (HandlerState, error) {
	for {
		state, err := AskHandler(ctx, address, name)
		if err == nil && state.Known == known {
			return state, nil
		}
		if err == nil {
			err = errors.New("it answers as before")
		}
		select {
		case <-ctx.Done():
			return state, fmt.Errorf("wait for handler %q of %s to come or go: %w", name, address, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// call makes calls to the Kubernetes interface.
func call(ctx context.Context, address string, body func(context.Context, cri.RuntimeServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		defer conn.Close()
		err = body(ctx, cri.NewRuntimeServiceClient(conn))
	}
	if err != nil {
		return fmt.Errorf("ask the Kubernetes interface of %s: %w", address, err)
	}
	return nil
}
