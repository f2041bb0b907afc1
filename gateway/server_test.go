package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/gateway/nativehttp"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/identity"
)

// published is a record as the publisher saw it.
type published struct {
	class bus.Class
	bus.Record
}

// publisher keeps what is published, or does what publish says.
type publisher struct {
	mu      sync.Mutex
	all     []published
	publish func(ctx context.Context, class bus.Class, r *bus.Record) error
}

func (p *publisher) Publish(ctx context.Context, class bus.Class, r *bus.Record) error {
	if p.publish != nil {
		if err := p.publish(ctx, class, r); err != nil {
			return err
		}
	}
	kept := published{class, *r}
	kept.Body = bytes.Clone(r.Body)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, kept)
	return nil
}

func (p *publisher) records() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}

// env is a gateway behind a real listener.
type env struct {
	t       testing.TB
	cfg     gateway.Config
	pub     gateway.Publisher
	tags    gateway.TagSource
	keys    *identity.Keys
	free    func() error
	gateway *gateway.Gateway
	addr    string
	client  *http.Client
}

func start(t testing.TB, change ...func(*env)) *env {
	t.Helper()
	e := &env{t: t, cfg: gateway.DefaultConfig(), pub: &publisher{}}
	for _, f := range change {
		f(e)
	}
	if err := e.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	e.gateway = gateway.New(e.cfg, e.pub, e.tags, e.keys, e.free, log)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.addr = listener.Addr().String()
	server := gateway.NewServer(e.cfg, e.gateway.Handler(nativehttp.Protocol()), log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(gateway.LimitConnections(listener, e.cfg.MaxConnections)) }()
	e.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 20 * time.Second}
	t.Cleanup(func() {
		e.client.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return e
}

type answer struct {
	status int
	body   string
	header http.Header
}

// do sends one request and reads the answer.
func (e *env) do(method, path string, body io.Reader, header ...string) answer {
	e.t.Helper()
	a, err := e.try(method, path, body, header...)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (e *env) try(method, path string, body io.Reader, header ...string) (answer, error) {
	r, err := http.NewRequest(method, "http://"+e.addr+path, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := e.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text), resp.Header}, errors.Join(err, resp.Body.Close())
}

func (e *env) post(path string, body []byte) answer {
	e.t.Helper()
	return e.do(http.MethodPost, path, bytes.NewReader(body))
}

// vector reads one captured request of the upstream client.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "schemas", "wire", "testdata", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// pathOf is the route that a captured request was posted to, from its file name such as 001-insert_process.cbor.
func pathOf(file string) string {
	_, rest, _ := strings.Cut(filepath.Base(file), "-")
	return "/ingestion/" + strings.TrimSuffix(rest, ".cbor")
}

// eventually polls until ok, which must happen soon.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
