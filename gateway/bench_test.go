package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/gateway/nativehttp"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/identity"
)

// nothing is a publisher that is done at once.
type nothing struct{ bytes atomic.Int64 }

func (n *nothing) Publish(_ context.Context, _ bus.Class, r *bus.Record) error {
	n.bytes.Add(int64(len(r.Body)))
	return nil
}

// silent is a response that goes nowhere.
type silent struct{ header http.Header }

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }
func (s *silent) WriteHeader(int)             {}

func handler(tb testing.TB, pub gateway.Publisher) http.Handler {
	keys, err := identity.ParseKeys(`[{"name":"a","key":"vector-api-key"}]`)
	if err != nil {
		tb.Fatal(err)
	}
	free := gateway.FreeSpace(tb.TempDir(), func(string) (gateway.Space, error) { return gateway.Space{Free: 1 << 40, Total: 1 << 40}, nil })
	g := gateway.New(gateway.DefaultConfig(), pub, nil, keys, free, slog.New(slog.DiscardHandler))
	return g.Handler(nativehttp.Protocol())
}

// blockOf34kB is a block body of the production's mean size.
func blockOf34kB(tb testing.TB) []byte {
	body := vector(tb, "logs/002-insert_block.cbor")
	return append(body, make([]byte, 34<<10-len(body))...)
}

// BenchmarkHandler is the gateway's own work on a 34 kB block, without HTTP and bus.
func BenchmarkHandler(b *testing.B) {
	h, body := handler(b, &nothing{}), blockOf34kB(b)
	r := httptest.NewRequest(http.MethodPost, nativehttp.PathBlock, nil)
	r.Header.Set("Authorization", "Bearer vector-api-key")
	r.ContentLength = int64(len(body))
	reader := bytes.NewReader(body)
	r.Body = io.NopCloser(reader)
	w := &silent{header: http.Header{}}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkLoopback is the same over HTTP on the loopback, client included.
func BenchmarkLoopback(b *testing.B) {
	e := start(b, func(e *env) { e.pub = &nothing{} })
	body := blockOf34kB(b)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a, err := e.try("POST", nativehttp.PathBlock, bytes.NewReader(body)); err != nil || a.status != 200 {
				b.Errorf("%d, %v", a.status, err)
			}
		}
	})
}

// FuzzRoutes posts anything to each route: the answer is 200 or 400, nothing else, and no panic.
func FuzzRoutes(f *testing.F) {
	for i, file := range []string{"logs/001-insert_process.cbor", "logs/003-insert_stream.cbor", "logs/002-insert_block.cbor", "synthetic_unreal/003-insert_block.cbor"} {
		f.Add(byte(i), vector(f, file))
	}
	h := handler(f, &nothing{})
	paths := []string{nativehttp.PathProcess, nativehttp.PathStream, nativehttp.PathBlock}
	f.Fuzz(func(t *testing.T, route byte, body []byte) {
		r := httptest.NewRequest(http.MethodPost, paths[int(route)%len(paths)], bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer vector-api-key")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Fatalf("status %d", w.Code)
		}
	})
}
