// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Listen listens on an address, which must be one of this host's alone: what runs here
// is nobody else's business, and there is no password.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w; write 127.0.0.1:PORT", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen on %q: only on loopback, as 127.0.0.1:PORT; let a proxy that checks who asks serve it to others", address)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", address)
}

// Serve answers GET /metrics until ctx ends. Requests are answered one after the other.
func Serve(ctx context.Context, l net.Listener, take func(context.Context) (Snapshot, error)) error {
	var one sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		var text bytes.Buffer
		s, err := take(r.Context())
		if err == nil {
			err = s.Write(&text)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", ContentType)
		_, _ = w.Write(text.Bytes()) // who asked has gone
	})
	server := http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it ends anyway
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
