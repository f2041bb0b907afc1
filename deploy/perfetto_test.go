package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/deploy"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/flight"
	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const perfettoProcess = "11111111-2222-3333-4444-555555555555"

// chunkServer answers every statement with chunks, a batch each, and then err.
type chunkServer struct {
	ids    []int32
	chunks [][]byte
	err    error
	asked  query.Request
}

func (c *chunkServer) Query(_ context.Context, req query.Request) (*query.Answer, error) {
	c.asked = req
	return query.NewAnswer("id", []string{"a stream is missing"}, &chunkStream{server: c}), nil
}

func (c *chunkServer) Prepare(context.Context, query.Request) (*arrow.Schema, error) {
	return nil, errors.ErrUnsupported
}

type chunkStream struct {
	server *chunkServer
	next   int
}

func (*chunkStream) Schema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "chunk_id", Type: arrow.PrimitiveTypes.Int32}, {Name: "chunk_data", Type: arrow.BinaryTypes.Binary},
	}, nil)
}

func (s *chunkStream) Next() (arrow.RecordBatch, error) {
	if s.next == len(s.server.ids) {
		if s.server.err != nil {
			return nil, s.server.err
		}
		return nil, io.EOF
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, s.Schema())
	defer b.Release()
	b.Field(0).(*array.Int32Builder).Append(s.server.ids[s.next])
	b.Field(1).(*array.BinaryBuilder).Append(s.server.chunks[s.next])
	s.next++
	return b.NewRecordBatch(), nil
}

func (*chunkStream) Close() error { return nil }

// start serves on loopback and returns the address.
func (c *chunkServer) start(t *testing.T) string {
	t.Helper()
	s, err := flight.New(flight.DefaultConfig(), c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		<-done
	})
	return "grpc://" + l.Addr().String()
}

// tracedProcess returns the chunks of a process with as many spans.
func tracedProcess(t *testing.T, spans int) *chunkServer {
	t.Helper()
	c := &chunkServer{}
	w := perfetto.New(func(chunk []byte) error {
		c.ids = append(c.ids, int32(len(c.ids)))
		c.chunks = append(c.chunks, bytes.Clone(chunk))
		return nil
	}, perfetto.Options{})
	id, err := telemetry.ParseID(perfettoProcess)
	if err != nil {
		t.Fatal(err)
	}
	thread := w.Process(id, "demo").Thread(id, "main", "1")
	for i := range spans {
		thread.Span(&telemetry.Span{Begin: int64(i), End: int64(i + 1), Name: "A"})
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
	return c
}

// runMain runs a command in this process.
func runMain(args ...string) (status int, out, errs string) {
	var o, e strings.Builder
	status = deploy.Main(args, strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

func TestPerfettoCommandWritesATrace(t *testing.T) {
	server := tracedProcess(t, 50_000)
	file := filepath.Join(t.TempDir(), "trace.pb")
	status, out, errs := runMain("perfetto", "--process", strings.ToUpper(perfettoProcess), "--begin", "2024-01-01T00:00:00Z",
		"--end", "2024-01-01T01:00:00.5+01:00", "-o", file, "--types", "thread", "--url", server.start(t))
	if status != 0 || !strings.Contains(out, "ui.perfetto.dev") || !strings.Contains(out, " MB") || strings.Contains(out, "no spans") {
		t.Errorf("status %d: %q %q", status, out, errs)
	}
	if !strings.Contains(errs, "warning: a stream is missing") {
		t.Errorf("no warning: %q", errs)
	}
	want := bytes.Join(server.chunks, nil)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes, not the %d sent: %v", len(got), len(want), err)
	}
	const sql = "SELECT chunk_id, chunk_data FROM perfetto_trace_chunks('11111111-2222-3333-4444-555555555555', 'thread', " +
		"TIMESTAMP '2024-01-01T00:00:00Z', TIMESTAMP '2024-01-01T00:00:00.5Z')"
	if server.asked.SQL != sql {
		t.Errorf("asked %s", server.asked.SQL)
	}
	status, out, errs = runMain("perfetto", "--process", perfettoProcess, "--begin", "1h", "-o", "-", "--url", server.start(t))
	if status != 0 || out != string(want) || !strings.Contains(errs, "ui.perfetto.dev") {
		t.Errorf("-o -: status %d, %d bytes, %q", status, len(out), errs)
	}
}

func TestPerfettoCommandSaysThatThereAreNoSpans(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace.pb")
	status, out, errs := runMain("perfetto", "--process", perfettoProcess, "--begin", "1h", "-o", file, "--url", tracedProcess(t, 0).start(t))
	if status != 0 || !strings.Contains(out, "no spans") {
		t.Errorf("status %d: %q %q", status, out, errs)
	}
}

// TestPerfettoCommandLeavesNoHalfTrace breaks the answer, and expects what was there before.
func TestPerfettoCommandLeavesNoHalfTrace(t *testing.T) {
	f := func(server *chunkServer, want string) {
		t.Helper()
		dir := t.TempDir()
		file := filepath.Join(dir, "trace.pb")
		if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, errs := runMain("perfetto", "--process", perfettoProcess, "--begin", "1h", "-o", file, "--url", server.start(t))
		if status != 1 || !strings.Contains(errs, want) {
			t.Errorf("status %d: %q, want %q", status, errs, want)
		}
		entries, err := os.ReadDir(dir)
		if got, _ := os.ReadFile(file); err != nil || len(entries) != 1 || string(got) != "before" {
			t.Errorf("%s: %d files, %q: %v", want, len(entries), got, err)
		}
	}
	gap, broken := tracedProcess(t, 100), tracedProcess(t, 100)
	gap.ids[4]++
	broken.err = errors.New("the disk is full")
	f(gap, "chunk 5 came where chunk 4 should")
	f(broken, "the disk is full")
	f(&chunkServer{}, "no trace")
}

func TestPerfettoCommandNamesMistakes(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		status, out, errs := runMain(append([]string{"perfetto"}, args...)...)
		if status == 0 || !strings.Contains(errs, want) {
			t.Errorf("%q: status %d %q %q, want %q", args, status, out, errs, want)
		}
	}
	f("no --process")
	f("FROM processes", "--process", "game.exe")
	f("FROM processes", "--process", perfettoProcess+",game.exe", "--begin", "1h")
	f("no --begin", "--process", perfettoProcess)
	f("neither RFC 3339", "--process", perfettoProcess, "--begin", "yesterday")
	f("is before --begin", "--process", perfettoProcess, "--begin", "1h", "--end", "2h")
	f("one of both, thread, async", "--process", perfettoProcess, "--begin", "1h", "--types", "threads")
	f("--with says which spans", "--process", perfettoProcess, "--begin", "1h", "--types", "async", "--with", "threads")
	f("start one with micromegas serve", "--process", perfettoProcess, "--begin", "1h", "-o", filepath.Join(t.TempDir(), "trace.pb"), "--url", "grpc://127.0.0.1:1")
	f("is a folder", "--process", perfettoProcess, "--begin", "1h", "-o", t.TempDir())
	f("is no flag", "--begin", "1h", perfettoProcess)
	f("no such file or directory", "--process", perfettoProcess, "--begin", "1h", "-o", filepath.Join(t.TempDir(), "none", "trace.pb"))
}
