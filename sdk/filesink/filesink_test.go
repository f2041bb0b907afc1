package filesink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
	"github.com/micromegas-go/micromegas/sdk/filesink"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

func read(t *testing.T, r io.Reader) (bodies [][]byte, fr *filesink.Reader) {
	t.Helper()
	fr = filesink.NewReader(r)
	for {
		f, err := fr.Next()
		if errors.Is(err, io.EOF) {
			return bodies, fr
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, f.Body)
	}
}

func readFile(t *testing.T, path string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	bodies, r := read(t, bytes.NewReader(data))
	if r.Torn() || r.Damaged() != 0 {
		t.Errorf("%s: torn %v, %d damaged", path, r.Torn(), r.Damaged())
	}
	return bodies
}

func config(path string) filesink.Config {
	cfg := filesink.DefaultConfig()
	cfg.Path = path
	return cfg
}

func open(t *testing.T, cfg filesink.Config) *filesink.Sink {
	t.Helper()
	s, err := filesink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(ctx)
	})
	return s
}

func send(s sdk.Sink, rs []sdk.Request) {
	for _, r := range rs {
		s.Send(r)
	}
}

func TestConformanceOfAFile(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		path := filepath.Join(t.TempDir(), "requests")
		return sinktest.Opened{Sink: open(t, config(path)), Arrived: func(t *testing.T) [][]byte { return readFile(t, path) }}
	})
}

func TestConformanceOfAWriter(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		w := &lockedBuffer{}
		s, err := filesink.NewWriter(w, deliver.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		return sinktest.Opened{Sink: s, Arrived: func(t *testing.T) [][]byte {
			bodies, _ := read(t, bytes.NewReader(w.bytes()))
			return bodies
		}}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

func TestFramesHoldTheWholeRequest(t *testing.T) {
	want := filesink.Frame{Request: sinktest.Noise(sdk.ClassMetrics, 1_000), Since: time.Unix(0, 1_700_000_000_123_456_789)}
	want.Kind, want.Events = sdk.KindStream, 77
	data := filesink.AppendFrame(nil, &want)
	if int64(len(data)) != filesink.Size(1_000) {
		t.Errorf("%d bytes", len(data))
	}
	got, err := filesink.NewReader(bytes.NewReader(data)).Next()
	if err != nil || !got.Since.Equal(want.Since) {
		t.Fatalf("%v, %v", got.Since, err)
	}
	if got.Since = want.Since; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestTornAndDamagedFilesGiveWhatIsWhole cuts a file everywhere, and flips each of its bytes.
func TestTornAndDamagedFilesGiveWhatIsWhole(t *testing.T) {
	var data []byte
	var ends []int
	for range 3 {
		data = filesink.AppendFrame(data, &filesink.Frame{Request: sinktest.Noise(sdk.ClassLogs, 50)})
		ends = append(ends, len(data))
	}
	for n := range data {
		whole := 0
		for _, e := range ends {
			if e <= n {
				whole++
			}
		}
		bodies, r := read(t, bytes.NewReader(data[:n]))
		if len(bodies) != whole || r.Torn() != (n%ends[0] != 0) || int(r.Offset()) != whole*ends[0] {
			t.Fatalf("cut at %d: %d frames, torn %v, offset %d", n, len(bodies), r.Torn(), r.Offset())
		}
		flipped := bytes.Clone(data)
		flipped[n] ^= 0x40
		bodies, r = read(t, bytes.NewReader(flipped))
		if len(bodies) > 2 || (r.Damaged() == 0 && !r.Torn()) {
			t.Fatalf("byte %d flipped: %d frames, %d damaged, torn %v", n, len(bodies), r.Damaged(), r.Torn())
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(filesink.AppendFrame(nil, &filesink.Frame{Request: sinktest.Noise(sdk.ClassLogs, 20)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, r := read(t, bytes.NewReader(data))
		if r.Offset() > int64(len(data)) {
			t.Errorf("offset %d of %d bytes", r.Offset(), len(data))
		}
	})
}

func TestTornTailIsCutOffBeforeMoreIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "requests")
	first, second := sinktest.Requests(3), sinktest.Requests(4)
	s := open(t, config(path))
	send(s, first)
	sinktest.Close(t, s)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn := filesink.AppendFrame(nil, &filesink.Frame{Request: sinktest.Noise(sdk.ClassLogs, 500)})
	f.Write(torn[:300])
	f.Close()
	s = open(t, config(path))
	send(s, second)
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, append(first, second...), readFile(t, path))
}

func TestRotationKeepsTheYoungestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "requests")
	cfg := config(path)
	cfg.MaxBytes, cfg.MaxFiles = 5_000, 3
	s := open(t, cfg)
	var rs []sdk.Request
	for range 20 {
		rs = append(rs, sinktest.Noise(sdk.ClassLogs, 2_000)) // two in a file
	}
	huge := sinktest.Noise(sdk.ClassLogs, 20_000)
	send(s, append(rs, huge))
	sinktest.Close(t, s)
	for name, want := range map[string][]sdk.Request{path: {huge}, path + ".1": rs[18:], path + ".2": rs[16:18]} {
		got := readFile(t, name)
		sinktest.CheckArrived(t, want, got)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestFolderThatIsMissingDropsUntilItIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	s := open(t, config(filepath.Join(dir, "requests")))
	lost, kept := sinktest.Requests(2), sinktest.Requests(2)
	send(s, lost)
	sinktest.Flush(t, s)
	if got := s.Stats(); sinktest.DroppedFor(got, sdk.ClassLogs, sdk.DropDisk) != 1 || sinktest.Dropped(got) != 6 {
		t.Errorf("%+v", got)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	send(s, kept)
	sinktest.Close(t, s)
	sinktest.CheckArrived(t, kept, readFile(t, filepath.Join(dir, "requests")))
}

// half writes half of what it gets when told to fail.
type half struct {
	bytes.Buffer
	fail bool
	n    int
}

func (h *half) Write(p []byte) (int, error) {
	if h.fail {
		n, _ := h.Buffer.Write(p[:h.n])
		return n, fmt.Errorf("disk full")
	}
	return h.Buffer.Write(p)
}

func TestWriterThatFailsHalfWayIsLeftAlone(t *testing.T) {
	w := &half{}
	s, err := filesink.NewWriter(w, deliver.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	rs := sinktest.Requests(1)
	one := func() {
		s.Send(rs[0])
		sinktest.Flush(t, s)
	}
	one()
	w.fail = true
	one() // nothing was written
	w.fail = false
	one()
	w.fail, w.n = true, 10
	one()
	w.fail = false
	one()
	sinktest.Close(t, s)
	if got := s.Stats(); got.Delivered != 2 || sinktest.DroppedFor(got, sdk.ClassMetadata, sdk.DropDisk) != 3 {
		t.Errorf("%+v", got)
	}
	if bodies, r := read(t, &w.Buffer); len(bodies) != 2 || !r.Torn() {
		t.Errorf("%d frames", len(bodies))
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	if _, err := filesink.New(filesink.Config{}); err == nil {
		t.Error("an empty config is accepted")
	}
}
