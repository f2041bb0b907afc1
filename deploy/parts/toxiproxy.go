package parts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Toxiproxy is a running toxiproxy server: TCP proxies that break on demand. Its methods are safe for concurrent use.
type Toxiproxy struct {
	api     string // URL
	running *child
}

// StartToxiproxy starts a server without proxies. Its output goes to toxiproxy.log in dir.
func StartToxiproxy(ctx context.Context, dir string) (*Toxiproxy, error) {
	program, err := Binary(ctx, ToxiproxyServer)
	if err != nil {
		return nil, fmt.Errorf("start toxiproxy: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start toxiproxy: %w", err)
	}
	log := filepath.Join(dir, "toxiproxy.log")
	for try := range childPorts {
		var addr string
		if addr, err = freeAddr(); err != nil {
			break
		}
		host, port, _ := strings.Cut(addr, ":")
		t := &Toxiproxy{api: "http://" + addr}
		if t.running, err = startChild(program, log, "-host", host, "-port", port); err != nil {
			break
		}
		err = t.running.until(ctx, func(ctx context.Context) error { return t.call(ctx, http.MethodGet, "/version", nil, nil) })
		if err == nil {
			return t, nil
		}
		err = errors.Join(err, t.Stop())
		if try+1 == childPorts || !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	return nil, fmt.Errorf("start toxiproxy: %w", err)
}

// call asks the server's API.
func (t *Toxiproxy) call(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, t.api+path, &body)
	if err != nil {
		return err
	}
	res, err := lookClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("toxiproxy: %s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(said))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(said, out)
}

// Stop ends the server and with it all proxies.
func (t *Toxiproxy) Stop() error { return t.running.kill() }

// Proxy is one TCP proxy. It breaks in one way at a time: each of Cut, Latency and Stall ends the one before.
type Proxy struct {
	server *Toxiproxy
	path   string
	addr   string
}

// Proxy makes a proxy on a free loopback port in front of upstream, a host:port. Nothing is wrong with it yet.
func (t *Toxiproxy) Proxy(name, upstream string) (*Proxy, error) {
	ask := map[string]any{"name": name, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true}
	var made struct{ Listen string }
	if err := t.call(context.Background(), http.MethodPost, "/proxies", ask, &made); err != nil {
		return nil, err
	}
	return &Proxy{server: t, path: "/proxies/" + url.PathEscape(name), addr: made.Listen}, nil
}

// Addr is the host:port of the proxy. It stays the same.
func (p *Proxy) Addr() string { return p.addr }

// Cut closes all connections and refuses new ones.
func (p *Proxy) Cut() error {
	return p.server.call(context.Background(), http.MethodPost, p.path, map[string]any{"enabled": false}, nil)
}

// Heal ends whatever is wrong.
func (p *Proxy) Heal() error {
	var toxics []struct{ Name string }
	if err := p.server.call(context.Background(), http.MethodGet, p.path+"/toxics", nil, &toxics); err != nil {
		return err
	}
	var errs []error
	for _, toxic := range toxics {
		errs = append(errs, p.server.call(context.Background(), http.MethodDelete, p.path+"/toxics/"+toxic.Name, nil, nil))
	}
	errs = append(errs, p.server.call(context.Background(), http.MethodPost, p.path, map[string]any{"enabled": true, "listen": p.addr}, nil))
	return errors.Join(errs...)
}

// Latency delays everything, each way, by d and up to jitter more or less.
func (p *Proxy) Latency(d, jitter time.Duration) error {
	return p.poison("latency", map[string]any{"latency": d.Milliseconds(), "jitter": jitter.Milliseconds()})
}

// Stall accepts connections and keeps those that are there, and forwards nothing: it holds it back until Heal.
func (p *Proxy) Stall() error {
	return p.poison("timeout", map[string]any{"timeout": 0})
}

func (p *Proxy) poison(kind string, attributes map[string]any) error {
	if err := p.Heal(); err != nil {
		return err
	}
	for _, stream := range []string{"upstream", "downstream"} {
		toxic := map[string]any{"name": kind + "-" + stream, "type": kind, "stream": stream, "attributes": attributes}
		if err := p.server.call(context.Background(), http.MethodPost, p.path+"/toxics", toxic, nil); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the proxy; its connections are closed.
func (p *Proxy) Delete() error {
	return p.server.call(context.Background(), http.MethodDelete, p.path, nil, nil)
}
