package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/gateway/nativehttp"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/identity"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const (
	process = nativehttp.PathProcess
	stream  = nativehttp.PathStream
	block   = nativehttp.PathBlock
)

// scenarios are the captured conversations of upstream's client.
var scenarios = []string{"auth_retry", "images", "logs", "metrics", "spans", "synthetic_malformed", "synthetic_unreal"}

func TestStatusCodes(t *testing.T) {
	goodProcess, goodStream, goodBlock := vector(t, "logs/001-insert_process.cbor"), vector(t, "logs/003-insert_stream.cbor"), vector(t, "logs/002-insert_block.cbor")
	e := start(t, func(e *env) { e.cfg.MaxBody = 100_000 })
	for _, c := range []struct {
		name, method, path string
		body               []byte
		status             int
		text               string
	}{
		{"process", "POST", process, goodProcess, 200, ""},
		{"process again", "POST", process, goodProcess, 200, ""},
		{"stream", "POST", stream, goodStream, 200, ""},
		{"block", "POST", block, goodBlock, 200, ""},
		{"block again", "POST", block, goodBlock, 200, ""},
		{"query parameters are ignored", "POST", block + "?x=y", goodBlock, 200, ""},
		{"trailing bytes are ignored", "POST", block, append(bytes.Clone(goodBlock), 1, 2, 3), 200, ""},
		{"empty block", "POST", block, nil, 400, "Bad request"},
		{"empty process", "POST", process, nil, 400, "Bad request"},
		{"empty stream", "POST", stream, nil, 400, "Bad request"},
		{"not CBOR", "POST", block, []byte("{}"), 400, "Bad request"},
		{"JSON process of old clients", "POST", process, []byte(`{"process_id":"x"}`), 400, "Bad request"},
		{"a stream as a block", "POST", block, goodStream, 400, "Bad request"},
		{"a block as a process", "POST", process, goodBlock, 400, "Bad request"},
		{"cut block", "POST", block, goodBlock[:len(goodBlock)-1], 400, "Bad request"},
		{"unparsable time", "POST", block, bytes.Replace(goodBlock, []byte("T"), []byte("!"), 4), 400, "Bad request"},
		{"too large", "POST", block, make([]byte, 100_001), 413, "Payload too large"},
		{"unknown path", "POST", "/ingestion/insert_everything", goodBlock, 404, "Not found"},
		{"trailing slash", "POST", block + "/", goodBlock, 404, "Not found"},
		{"root", "GET", "/", nil, 404, "Not found"},
		{"GET process", "GET", process, nil, 405, "Method not allowed"},
		{"GET stream", "GET", stream, nil, 405, "Method not allowed"},
		{"GET block", "GET", block, nil, 405, "Method not allowed"},
		{"PUT block", "PUT", block, goodBlock, 405, "Method not allowed"},
	} {
		a := e.do(c.method, c.path, bytes.NewReader(c.body))
		if a.status != c.status || a.body != c.text {
			t.Errorf("%s: %d %q, want %d %q", c.name, a.status, a.body, c.status, c.text)
		}
		if allow := a.header.Get("Allow"); (allow == "POST") != (c.status == 405) {
			t.Errorf("%s: Allow %q", c.name, allow)
		}
		if a.header.Get("Retry-After") != "" {
			t.Errorf("%s: Retry-After %q", c.name, a.header.Get("Retry-After"))
		}
	}
	s := e.gateway.Stats()
	if s.Rejects["bad_body"] != 6 || s.Rejects["empty_body"] != 3 || s.Rejects["body_too_large"] != 1 || s.Ack.Count != 7 || s.BodyBytesInFlight != 0 {
		t.Errorf("stats = %+v", s)
	}
	for _, r := range s.Routes {
		if r.Path == block && (r.Statuses[200] != 4 || r.Statuses[413] != 1 || r.Statuses[405] != 2) {
			t.Errorf("statuses of %s = %v", r.Path, r.Statuses)
		}
	}
}

// TestCapturedRequestsReachTheBus posts all captured requests in their order through a real bus, and reads the client's bytes back.
func TestCapturedRequestsReachTheBus(t *testing.T) {
	be := bustest.NewEnv(t)
	b := be.Open(t)
	e := start(t, func(e *env) { e.pub = b })
	posted := map[bus.Class][][]byte{}
	for _, scenario := range scenarios {
		files, err := filepath.Glob(filepath.Join("..", "schemas", "wire", "testdata", scenario, "*.cbor"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no captured requests of %s: %v", scenario, err)
		}
		for _, file := range files {
			body := vector(t, scenario+"/"+filepath.Base(file))
			if a := e.post(pathOf(file), body); a.status != 200 || a.body != "" {
				t.Errorf("%s/%s: %d %q", scenario, filepath.Base(file), a.status, a.body)
			}
		}
	}
	read := map[bus.Class]int{}
	for _, shard := range b.Shards() {
		head, err := b.Head(t.Context(), shard)
		if err != nil {
			t.Fatal(err)
		}
		first := head
		first.Seq = b.Current(shard).FirstSeq - 1
		r, err := b.NewReader(t.Context(), first, be.Packs)
		if err != nil {
			t.Fatal(err)
		}
		last := int64(0)
		for at := first.Seq; at < head.Seq; {
			frame, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			at = frame.Seq
			for _, rec := range frame.Records() {
				if rec.Err != nil || rec.InsertTimeUs <= last {
					t.Errorf("record of %s: %v, insert time %d after %d", frame.Position, rec.Err, rec.InsertTimeUs, last)
				}
				last = rec.InsertTimeUs
				posted[shard.Class] = append(posted[shard.Class], bytes.Clone(rec.Body))
				if (shard.Class == bus.Raw) == rec.Tag.Eager() {
					t.Errorf("a record of tag %s in class %s", rec.Tag, shard.Class)
				}
				read[shard.Class]++
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if read[bus.Raw] == 0 || read[bus.Eager] == 0 {
		t.Errorf("read %v records", read)
	}
	// Every posted body is there, byte for byte.
	for _, scenario := range scenarios {
		files, _ := filepath.Glob(filepath.Join("..", "schemas", "wire", "testdata", scenario, "*.cbor"))
		for _, file := range files {
			body := vector(t, scenario+"/"+filepath.Base(file))
			if !contains(posted[bus.Eager], body) && !contains(posted[bus.Raw], body) {
				t.Errorf("%s/%s is not on the bus", scenario, filepath.Base(file))
			}
		}
	}
}

func contains(bodies [][]byte, body []byte) bool {
	for _, b := range bodies {
		if bytes.Equal(b, body) {
			return true
		}
	}
	return false
}

func TestRecordsCarryTheEnvelope(t *testing.T) {
	pub := &publisher{}
	e := start(t, func(e *env) { e.pub = pub })
	for _, file := range []string{"spans/001-insert_process.cbor", "spans/002-insert_block.cbor", "spans/003-insert_stream.cbor", "spans/004-insert_block.cbor"} {
		e.post(pathOf(file), vector(t, file))
	}
	got := pub.records()
	if len(got) != 4 {
		t.Fatalf("%d records", len(got))
	}
	for i, kind := range []bus.Kind{bus.KindProcess, bus.KindBlock, bus.KindStream, bus.KindBlock} {
		r := got[i]
		if r.Kind != kind || r.ProcessID.IsZero() || r.ProcessID != got[0].ProcessID || r.InsertTimeUs == 0 {
			t.Errorf("record %d = kind %s, process %s, time %d", i, r.Kind, r.ProcessID, r.InsertTimeUs)
		}
		if (kind == bus.KindProcess) != r.StreamID.IsZero() || (kind != bus.KindBlock) != r.BlockID.IsZero() {
			t.Errorf("record %d of kind %s has stream %s, block %s", i, kind, r.StreamID, r.BlockID)
		}
		if kind == bus.KindBlock && (r.BeginTime == 0 || r.EndTime < r.BeginTime) {
			t.Errorf("record %d covers %d to %d", i, r.BeginTime, r.EndTime)
		}
		if kind != bus.KindBlock && r.Tag != telemetry.TagUnknown {
			t.Errorf("registration %d has tag %s", i, r.Tag)
		}
	}
}

func TestAuthMatrix(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"a","key":"vector-api-key"},{"name":"b","key":"other"}]`)
	if err != nil {
		t.Fatal(err)
	}
	body := vector(t, "logs/001-insert_process.cbor")
	guarded, open := start(t, func(e *env) { e.keys = keys }), start(t)
	for header, want := range map[string]int{
		"Bearer vector-api-key": 200, "Bearer other": 200, "": 401, "Bearer": 401, "Bearer ": 401, "bearer vector-api-key": 401,
		"Bearer  vector-api-key": 401, "Basic dXNlcjpwYXNz": 401, "Bearer wrong": 401, "vector-api-key": 401,
		"Bearer " + strings.Repeat("x", 8000): 401,
	} {
		args := []string{"Authorization", header}
		if header == "" {
			args = nil
		}
		a := guarded.do("POST", process, bytes.NewReader(body), args...)
		if a.status != want || want == 401 && a.body != "Invalid token" {
			t.Errorf("%.30q: %d %q, want %d", header, a.status, a.body, want)
		}
		if a := open.do("POST", process, bytes.NewReader(body), args...); a.status != 200 {
			t.Errorf("%.30q on an open gateway: %d", header, a.status)
		}
	}
	// Without a key the body is not even looked at.
	if a := guarded.post(block, nil); a.status != 401 {
		t.Errorf("an empty body without a key: %d, want 401", a.status)
	}
	if a := guarded.do("GET", block, nil); a.status != 405 {
		t.Errorf("GET without a key: %d, want 405", a.status)
	}
}

func TestOwnTroubleIs503(t *testing.T) {
	var trouble, disk atomic.Value // of error boxes
	type box struct{ err error }
	trouble.Store(box{})
	disk.Store(box{})
	pub := &publisher{publish: func(context.Context, bus.Class, *bus.Record) error { return trouble.Load().(box).err }}
	e := start(t, func(e *env) { e.pub, e.free = pub, func() error { return disk.Load().(box).err } })
	body := vector(t, "logs/001-insert_process.cbor")
	f := func(want int) {
		t.Helper()
		a := e.post(process, body)
		if a.status != want {
			t.Errorf("%d %q, want %d", a.status, a.body, want)
		}
		if want == 503 && (a.header.Get("Retry-After") != "1" || a.body != "Service unavailable") {
			t.Errorf("Retry-After %q, body %q", a.header.Get("Retry-After"), a.body)
		}
	}
	f(200)
	for _, err := range []error{bus.ErrUnavailable, bus.ErrTooLarge, bus.ErrClosed, context.DeadlineExceeded, errors.New("anything")} {
		trouble.Store(box{err})
		f(503)
	}
	trouble.Store(box{})
	disk.Store(box{errors.New("disk is nearly full")})
	f(503)
	disk.Store(box{})
	f(200)
	if s := e.gateway.Stats(); s.Rejects["bus_unavailable"] != 5 || s.Rejects["disk_reserve"] != 1 {
		t.Errorf("rejects = %v", s.Rejects)
	}
}

// A bus, or a lake for a large body, that is silent costs a request its bound, and no more.
func TestSilentBusIs503InTime(t *testing.T) {
	pub := &publisher{publish: func(ctx context.Context, _ bus.Class, _ *bus.Record) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	e := start(t, func(e *env) { e.pub, e.cfg.PublishTimeout = pub, 50*time.Millisecond })
	if a := e.post(process, vector(t, "logs/001-insert_process.cbor")); a.status != 503 {
		t.Errorf("%d %q, want 503", a.status, a.body)
	}
}

func TestBusDownIs503AndComesBack(t *testing.T) {
	be := bustest.NewEnv(t)
	b := be.Open(t, func(c *bus.Config) { c.PublishTimeout = 300 * time.Millisecond })
	e := start(t, func(e *env) { e.pub = b })
	body := vector(t, "logs/001-insert_process.cbor")
	if a := e.post(process, body); a.status != 200 {
		t.Fatalf("before: %d", a.status)
	}
	be.Server.Shutdown()
	begin := time.Now()
	if a := e.post(process, body); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("with the bus down: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("503 took %v", took)
	}
}

func TestBodiesArriveWholeHoweverSent(t *testing.T) {
	pub := &publisher{}
	e := start(t, func(e *env) { e.pub, e.cfg.MaxBody = pub, 8<<20 })
	good := vector(t, "logs/002-insert_block.cbor")
	for _, size := range []int{len(good), 64<<10 - 1, 64 << 10, 64<<10 + 1, 256 << 10, 1<<20 + 5, 5 << 20, 8<<20 - 1, 8 << 20} {
		body := append(bytes.Clone(good), make([]byte, size-len(good))...) // trailing bytes are ignored by the decoder
		for i := range body[len(good):] {
			body[len(good)+i] = byte(i * 7)
		}
		for _, how := range []string{"length", "chunked", "small writes"} {
			var r io.Reader = bytes.NewReader(body)
			switch how {
			case "chunked":
				r = struct{ io.Reader }{r} // hides the length
			case "small writes":
				if size > 1<<20 {
					continue
				}
				r = &pieces{data: body, size: 1000}
			}
			before := len(pub.records())
			a := e.do("POST", block, r)
			got := pub.records()
			if a.status != 200 || len(got) != before+1 || !bytes.Equal(got[before].Body, body) {
				t.Errorf("%d bytes, %s: %d, %d records", size, how, a.status, len(got)-before)
			}
		}
	}
	if s := e.gateway.Stats(); s.BodyBytesInFlight != 0 {
		t.Errorf("%d bytes in flight in the end", s.BodyBytesInFlight)
	}
}

// pieces reads in small pieces.
type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.data)
	p.data = p.data[n:]
	return n, nil
}

func TestOversizeIs413WithOrWithoutLength(t *testing.T) {
	pub := &publisher{}
	e := start(t, func(e *env) { e.pub, e.cfg.MaxBody = pub, 1<<20 })
	for _, size := range []int{1<<20 + 1, 2 << 20, 16 << 20} {
		for _, chunked := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(make([]byte, size))
			if chunked {
				r = struct{ io.Reader }{r}
			}
			a, err := e.try("POST", block, r)
			// The server stops reading; a client that insists on sending may see the connection go instead of the answer.
			if err == nil && a.status != 413 {
				t.Errorf("%d bytes, chunked %t: %d", size, chunked, a.status)
			}
		}
	}
	eventually(t, "nothing in flight", func() bool { s := e.gateway.Stats(); return s.BodyBytesInFlight == 0 && s.RequestsInFlight == 0 })
	if s := e.gateway.Stats(); s.Rejects["body_too_large"] != 6 || len(pub.records()) != 0 {
		t.Errorf("rejects = %v, %d published", s.Rejects, len(pub.records()))
	}
}

// rawRequest writes bytes to a new connection and leaves it open.
func (e *env) rawRequest(text string) net.Conn {
	e.t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		e.t.Fatal(err)
	}
	return c
}

func TestClaimedLengthsTakeNoMemory(t *testing.T) {
	e := start(t)
	for range 50 {
		e.rawRequest("POST " + block + " HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\nfew")
	}
	eventually(t, "50 requests in flight", func() bool { return e.gateway.Stats().RequestsInFlight == 50 })
	if got := e.gateway.Stats().BodyBytesInFlight; got > 50*64<<10 {
		t.Errorf("50 claims of 100 MiB hold %d bytes", got)
	}
	if a := e.post(process, vector(t, "logs/001-insert_process.cbor")); a.status != 200 {
		t.Errorf("another client meanwhile: %d", a.status)
	}
}

func TestSlowClientsAreCutOff(t *testing.T) {
	e := start(t, func(e *env) {
		e.cfg.ReadHeaderTimeout, e.cfg.ReadTimeout = 100*time.Millisecond, 200*time.Millisecond
	})
	for name, text := range map[string]string{
		"slow header":       "POST " + block + " HTTP/1.1\r\nHost:",
		"slow body":         "POST " + block + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew",
		"slow chunked body": "POST " + block + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfew\r\n",
		"silence":           "",
	} {
		c := e.rawRequest(text)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c) // ends when the server closes
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(name, "body") && !strings.HasPrefix(string(answer), "HTTP/1.1 503") {
			t.Errorf("%s: answer %.40q, want 503", name, answer)
		}
	}
	if s := e.gateway.Stats(); s.Rejects["body_read"] != 2 || s.BodyBytesInFlight != 0 {
		t.Errorf("rejects = %v, %d bytes in flight", s.Rejects, s.BodyBytesInFlight)
	}
}

func TestBrokenRequestsHarmNobody(t *testing.T) {
	pub := &publisher{}
	e := start(t, func(e *env) { e.pub = pub })
	for _, text := range []string{
		"POST " + block + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST " + block + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST " + block + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"POST " + block + " HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 64<<10) + "\r\n\r\n",
		"\x16\x03\x01garbage\r\n\r\n",
	} {
		c := e.rawRequest(text)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "HTTP/1.1 4") {
			t.Errorf("%.60q: %q", text, line)
		}
	}
	// A client that leaves in the middle of its body.
	c := e.rawRequest("POST " + block + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfew")
	eventually(t, "the request is in", func() bool { return e.gateway.Stats().RequestsInFlight == 1 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is out again", func() bool { s := e.gateway.Stats(); return s.RequestsInFlight == 0 && s.BodyBytesInFlight == 0 })
	if n := len(pub.records()); n != 0 {
		t.Errorf("%d records published", n)
	}
}

func TestBodiesInFlightAreBounded(t *testing.T) {
	release := make(chan struct{})
	pub := &publisher{publish: func(context.Context, bus.Class, *bus.Record) error { <-release; return nil }}
	const room = 8
	e := start(t, func(e *env) { e.pub, e.cfg.MaxBody, e.cfg.MaxBodiesInFlight = pub, 64<<10, room*64<<10 })
	body := vector(t, "logs/001-insert_process.cbor")
	statuses := make(chan int, room)
	for range room {
		go func() {
			a, err := e.try("POST", process, bytes.NewReader(body))
			if err != nil {
				t.Error(err)
			}
			statuses <- a.status
		}()
	}
	eventually(t, "all bodies are in flight", func() bool { return e.gateway.Stats().BodyBytesInFlight == room*64<<10 })
	a := e.post(process, body)
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("one body more: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
	close(release)
	for range room {
		if s := <-statuses; s != 200 {
			t.Errorf("a body that was in: %d", s)
		}
	}
	if a := e.post(process, body); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
	eventually(t, "nothing in flight", func() bool { return e.gateway.Stats().BodyBytesInFlight == 0 })
}

func TestDrainUnderLoadFinishesWhatIsIn(t *testing.T) {
	be := bustest.NewEnv(t)
	b := be.Open(t)
	var durable atomic.Int64
	pub := &publisher{publish: func(ctx context.Context, class bus.Class, r *bus.Record) error {
		err := b.Publish(ctx, class, r)
		if err == nil {
			durable.Add(1)
		}
		return err
	}}
	e := start(t, func(e *env) { e.pub = pub })
	body := vector(t, "logs/002-insert_block.cbor")
	var acked, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				a, err := e.try("POST", block, bytes.NewReader(body))
				switch {
				case err != nil:
					t.Errorf("post: %v", err)
					return
				case a.status == 200:
					acked.Add(1)
				case a.status == 503 && a.header.Get("Retry-After") != "":
					refused.Add(1)
					return
				default:
					t.Errorf("status %d", a.status)
					return
				}
			}
		})
	}
	eventually(t, "load", func() bool { return acked.Load() > 50 })
	if err := e.gateway.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := e.gateway.Stats()
	if s.BodyBytesInFlight != 0 {
		t.Errorf("after drain: %d bytes in flight", s.BodyBytesInFlight)
	}
	done := durable.Load()
	wg.Wait()
	if acked.Load() != done || durable.Load() != done || refused.Load() != 8 {
		t.Errorf("%d acked, %d durable at the drain's end, %d now, %d refused", acked.Load(), done, durable.Load(), refused.Load())
	}
	if err := e.gateway.Drain(t.Context()); err != nil {
		t.Errorf("drain again: %v", err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	in := make(chan struct{})
	pub := &publisher{publish: func(context.Context, bus.Class, *bus.Record) error { close(in); <-release; return nil }}
	e := start(t, func(e *env) { e.pub = pub })
	body := vector(t, "logs/001-insert_process.cbor")
	go func() { _, _ = e.try("POST", process, bytes.NewReader(body)) }()
	<-in
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.gateway.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain = %v, want deadline exceeded", err)
	}
}

func TestClientGoneDoesNotEndThePublication(t *testing.T) {
	in, gone := make(chan struct{}), make(chan struct{})
	pub := &publisher{publish: func(ctx context.Context, _ bus.Class, _ *bus.Record) error {
		close(in)
		<-gone
		return ctx.Err()
	}}
	e := start(t, func(e *env) { e.pub = pub })
	body := vector(t, "logs/001-insert_process.cbor")
	c := e.rawRequest(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", process, len(body), body))
	<-in
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	close(gone)
	eventually(t, "published", func() bool { return len(pub.records()) == 1 })
}

func TestConnectionsAreBounded(t *testing.T) {
	e := start(t, func(e *env) { e.cfg.MaxConnections = 2 })
	first, second := e.rawRequest(""), e.rawRequest("")
	body := vector(t, "logs/001-insert_process.cbor")
	text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", process, len(body), body)
	third := e.rawRequest(text)
	if err := third.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); err == nil {
		t.Errorf("a third connection was served (%d bytes)", n)
	}
	for _, c := range []net.Conn{first, second} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := third.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(third).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("when there is room: %q, %v", line, err)
	}
}

func TestConfigValidateReportsEveryMistake(t *testing.T) {
	if err := gateway.DefaultConfig().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	err := gateway.Config{MaxBody: 10, MaxBodiesInFlight: 5}.Validate()
	for _, want := range []string{"bodies in flight", "retry after", "tag cache", "lookups", "header timeout", "write timeout", "idle", "header bytes", "connections"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in: %v", want, err)
		}
	}
}

func TestHandlerNeedsRoutes(t *testing.T) {
	f := func(protocols ...gateway.Protocol) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		gateway.New(gateway.DefaultConfig(), &publisher{}, nil, nil, nil, nil).Handler(protocols...)
	}
	f()
	f(nativehttp.Protocol(), nativehttp.Protocol())
}
