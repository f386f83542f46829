// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

// socketEnv names the socket of the process that makes items for this one.
const socketEnv = "ISOLATE_CACHE_SOCKET"

type answer struct {
	Dir   string
	Error string
}

// Serve makes items for processes inside namespaces without a network, until
// stop is called. Such a process is started with env in its environment; both
// must be the same program, so that they know the same items.
//
// A socket in the file system is used because those reach across network
// namespaces.
func Serve(ctx context.Context, path string) (env string, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return "", nil, fmt.Errorf("serve cache: %w", err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go reply(ctx, connection)
		}
	}()
	return socketEnv + "=" + path, func() { listener.Close() }, nil
}

func reply(ctx context.Context, connection net.Conn) {
	defer connection.Close()
	var name string
	if err := json.NewDecoder(connection).Decode(&name); err != nil {
		return
	}
	var a answer
	dir, err := Get(ctx, name)
	if err != nil {
		a.Error = err.Error()
	}
	a.Dir = dir
	// An asker that has gone needs no answer.
	_ = json.NewEncoder(connection).Encode(a)
}

func ask(ctx context.Context, path, name string) (string, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("ask for %q: %w", name, err)
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	if err := json.NewEncoder(connection).Encode(name); err != nil {
		return "", fmt.Errorf("ask for %q: %w", name, err)
	}
	var a answer
	if err := json.NewDecoder(connection).Decode(&a); err != nil {
		return "", fmt.Errorf("ask for %q: %w", name, err)
	}
	if a.Error != "" {
		return "", errors.New(a.Error)
	}
	return a.Dir, nil
}
