package logfile

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

// harness runs a producer by hand in a folder of its own: poll looks once.
type harness struct {
	t    *testing.T
	dir  string
	sink *memsink.Sink
	cfg  Config
	p    *Producer
	now  time.Time
}

func newHarness(t *testing.T, change func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir(), sink: memsink.New(0), now: time.Now()}
	if err := sdk.Start(t.Context(), sdk.Config{Sink: h.sink, Level: sdk.Trace}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	h.cfg = DefaultConfig()
	h.cfg.Paths = []string{h.path("*.log")}
	if change != nil {
		change(&h.cfg)
	}
	h.start()
	return h
}

func (h *harness) path(name string) string { return filepath.Join(h.dir, name) }

func (h *harness) start() {
	h.t.Helper()
	p, err := New(h.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		h.t.Fatal(err)
	}
	h.p = p
	p.resume()
}

// restart ends the producer in good order, does something, and starts another one.
func (h *harness) restart(between func()) {
	h.t.Helper()
	if err := h.p.finish(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	between()
	h.start()
}

// poll looks once, a second later than before.
func (h *harness) poll() {
	h.now = h.now.Add(time.Second)
	h.p.poll(h.t.Context(), h.now)
}

func (h *harness) append(name, text string) {
	h.t.Helper()
	f, err := os.OpenFile(h.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) rename(from, to string) {
	h.t.Helper()
	if err := os.Rename(h.path(from), h.path(to)); err != nil {
		h.t.Fatal(err)
	}
}

// copyTruncate does what logrotate does with copytruncate.
func (h *harness) copyTruncate(from, to string) {
	h.t.Helper()
	text, err := os.ReadFile(h.path(from))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(to), text, 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.truncate(from)
}

func (h *harness) truncate(name string) {
	h.t.Helper()
	if err := os.Truncate(h.path(name), 0); err != nil {
		h.t.Fatal(err)
	}
}

// logs returns what was recorded.
func (h *harness) logs() []memsink.Log {
	h.t.Helper()
	if err := sdk.Flush(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	d, err := h.sink.Decode()
	if err != nil {
		h.t.Fatal(err)
	}
	logs, err := d.Logs()
	if err != nil {
		h.t.Fatal(err)
	}
	return logs
}

// want checks the messages recorded so far.
func (h *harness) want(msgs ...string) {
	h.t.Helper()
	got := []string{}
	for _, l := range h.logs() {
		got = append(got, l.Msg)
	}
	if diff := cmp.Diff(append([]string{}, msgs...), got); diff != "" {
		h.t.Error(diff)
	}
}

func TestLinesArriveOnce(t *testing.T) {
	h := newHarness(t, nil)
	h.append("a.log", "one\ntwo\nhal")
	h.poll()
	h.poll()
	h.want("one", "two")
	h.append("a.log", "f\n")
	h.append("b.log", "other file\r\n\n  \n") // appears later
	h.poll()
	h.poll()
	h.want("one", "two", "half", "other file")
	if s := h.p.Stats(); s.Lines != 6 || s.Entries != 4 || s.Files != 2 || s.Bytes != 29 {
		t.Errorf("%+v", s)
	}
	for _, l := range h.logs() {
		if v, _ := l.Properties.Lookup("log_file"); !strings.HasSuffix(v, ".log") || l.Target != "logfile" {
			t.Errorf("%+v", l)
		}
	}
}

func TestLinesThatBeginWithABlankAreJoined(t *testing.T) {
	h := newHarness(t, nil)
	h.append("a.log", "  alone\nERROR it broke\n\tat one\n\tat two\n")
	h.poll()
	h.append("a.log", "\tat three\nnext\n")
	h.poll()
	h.poll()
	h.want("  alone", "ERROR it broke\n\tat one\n\tat two\n\tat three", "next")
	h.append("a.log", "begin\n"+strings.Repeat(" x\n", maxEntryLines))
	h.poll()
	h.poll()
	logs := h.logs()
	if n := len(logs); n != 5 || strings.Count(logs[3].Msg, "\n") != maxEntryLines-1 || logs[4].Msg != " x" {
		t.Errorf("%d entries", n)
	}
}

func TestLongLinesAreCutAndCounted(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.MaxLineBytes = minLineBytes })
	long := strings.Repeat("x", minLineBytes-1) + "é and more"
	h.append("a.log", long+"\nshort\n"+strings.Repeat("y", 3*chunkBytes))
	h.poll()
	h.append("a.log", "\nbad \xff\xfe utf\n")
	h.poll()
	h.poll()
	h.want(strings.Repeat("x", minLineBytes-1), "short", strings.Repeat("y", minLineBytes), "bad \uFFFD utf")
	if s := h.p.Stats(); s.Cut != 2 || s.Lines != 4 {
		t.Errorf("%+v", s)
	}
}

func TestRotationByRename(t *testing.T) {
	for _, pattern := range []string{"a.log", "a.log*"} {
		t.Run(pattern, func(t *testing.T) {
			h := newHarness(t, nil)
			h.p.cfg.Paths = []string{h.path(pattern)}
			h.append("a.log", "one\n")
			h.poll()
			h.append("a.log", "two\n")
			h.rename("a.log", "a.log.1")
			h.append("a.log.1", "three\n") // the writer has not noticed yet
			h.append("a.log", "four\n")
			h.poll()
			h.append("a.log.1", "last")
			h.append("a.log", "five\n")
			h.poll()
			for range int(goneGrace/time.Second) + 2 {
				h.poll()
			}
			want := []string{"one", "two", "three", "four", "five", "last"}
			files := int64(1)
			if pattern == "a.log*" { // the file has a name, and its last line may get an end
				want, files = want[:5], 2
			}
			slices.Sort(want) // each file has an order of its own
			got := []string{}
			for _, l := range h.logs() {
				got = append(got, l.Msg)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if n := h.p.Stats().Files; n != files {
				t.Errorf("%d files", n)
			}
		})
	}
}

func TestRotationByCopyAndTruncate(t *testing.T) {
	for _, pattern := range []string{"a.log", "a.log*"} {
		for _, seen := range []bool{false, true} {
			t.Run(fmt.Sprint(pattern, seen), func(t *testing.T) {
				h := newHarness(t, nil)
				h.p.cfg.Paths = []string{h.path(pattern)}
				h.append("a.log", "one\n")
				h.poll()
				h.append("a.log", "two\n") // is in the copy alone
				if seen {
					h.copyTruncate("a.log", "a.log.1.gz") // what is compressed counts as nothing
					h.append("a.log", "one\ntwo\n")
					h.append("a.log.1", "one\ntwo\n")
					h.poll() // a copy, and the file not yet cut
					h.append("a.log", "three\n")
				}
				h.copyTruncate("a.log", "a.log.1")
				h.append("a.log", "new and longer than before\n")
				h.poll()
				h.poll()
				want := []string{"one", "two", "new and longer than before"}
				if seen {
					want = []string{"one", "two", "three", "new and longer than before"}
				}
				h.want(want...)
				h.rename("a.log.1", "a.log.2")
				h.copyTruncate("a.log", "a.log.1")
				h.poll()
				h.append("a.log", "x\n")
				h.poll()
				h.poll()
				h.want(append(want, "x")...)
			})
		}
	}
}

func TestTruncationWithoutCopy(t *testing.T) {
	h := newHarness(t, nil)
	h.append("a.log", "one\ntwo\npart")
	h.poll()
	h.truncate("a.log")
	h.append("a.log", strings.Repeat("\x00", 50)+"new\n") // a writer that goes on at its old offset leaves a hole
	h.poll()
	h.poll()
	h.want("one", "two", "part", "new")
	h.truncate("a.log")
	h.poll()
	h.append("a.log", "again\n")
	h.poll()
	h.poll()
	h.want("one", "two", "part", "new", "again")
	if n := h.p.Stats().Truncated; n != 2 {
		t.Errorf("%d truncations", n)
	}
}

func TestRestartContinues(t *testing.T) {
	for name, c := range map[string]struct {
		between func(*harness)
		want    []string
	}{
		"nothing": {func(*harness) {}, nil},
		"more":    {func(h *harness) { h.append("a.log", "tial\nthree\n") }, []string{"partial", "three"}},
		"renamed": {func(h *harness) {
			h.append("a.log", "tial\n")
			h.rename("a.log", "a.log.1")
			h.append("a.log", "new\n")
		}, []string{"partial", "new"}},
		"copied, cut": {func(h *harness) {
			h.append("a.log", "tial\n")
			h.copyTruncate("a.log", "a.log.1")
			h.append("a.log", "new\n")
		}, []string{"partial", "new"}},
		"cut":             {func(h *harness) { h.truncate("a.log"); h.append("a.log", "new\n") }, []string{"new"}},
		"cut, now longer": {func(h *harness) { h.truncate("a.log"); h.append("a.log", "new and longer than before\n") }, []string{"new and longer than before"}},
		"another": {func(h *harness) {
			os.Remove(h.path("a.log"))
			h.append("c.log", "x")
			h.append("a.log", "quite another file\n")
		}, []string{"quite another file"}},
		"moved": {func(h *harness) { // to another disk and back
			text, _ := os.ReadFile(h.path("a.log"))
			h.append("new", string(text)+"tial\n")
			h.rename("new", "a.log")
		}, []string{"partial"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.Positions = filepath.Join(filepath.Dir(c.Paths[0]), "positions") })
			h.append("a.log", "one\ntwo\npar")
			h.poll()
			h.restart(func() { c.between(h) })
			h.poll()
			h.poll()
			h.want(append([]string{"one", "two"}, c.want...)...)
			h.restart(func() {})
			h.poll()
			h.poll()
			h.want(append([]string{"one", "two"}, c.want...)...)
		})
	}
}

// TestPositionsAreOfWhatIsDelivered lets the sink deliver nothing: the positions stay, and reading stops at the bound.
func TestPositionsAreOfWhatIsDelivered(t *testing.T) {
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Paths, cfg.Positions = []string{filepath.Join(dir, "*.log")}, filepath.Join(dir, "positions")
	stuck := &stuckSink{Sink: memsink.New(0)}
	if err := sdk.Start(t.Context(), sdk.Config{Sink: stuck}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	text := strings.Repeat(strings.Repeat("x", 99)+"\n", 100_000)
	if err := os.WriteFile(filepath.Join(dir, "a.log"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p.poll(t.Context(), time.Now())
	if n := p.Stats().Bytes; n < maxAhead/4 || n > maxAhead+chunkBytes {
		t.Errorf("%d bytes read ahead", n)
	}
	if _, err := os.Stat(cfg.Positions); err == nil {
		t.Error("positions were written")
	}
	stuck.open = true
	p.poll(t.Context(), time.Now())
	if !p.deliver(t.Context(), time.Minute) {
		t.Error("no delivery")
	}
	saved, err := loadPositions(cfg.Positions)
	if err != nil || len(saved) != 1 || saved[0].Offset < int64(len(text))-100 {
		t.Errorf("%+v, %v", saved, err)
	}
	if drops := sdk.Stats().Dropped["memory"]; drops != 0 {
		t.Errorf("%d entries dropped", drops)
	}
	if n := p.Stats().Lines; n != 100_000 {
		t.Errorf("%d lines", n)
	}
}

type stuckSink struct {
	*memsink.Sink
	open bool
}

func (s *stuckSink) Flush(ctx context.Context) error {
	if s.open {
		return s.Sink.Flush(ctx)
	}
	return context.DeadlineExceeded
}

func TestDamagedPositionsAreRefused(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Paths = []string{"x"}
	cfg.Positions = filepath.Join(t.TempDir(), "positions")
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"files":[{"offset":-1}]}`, `{"version":1,"files":[{"head_bytes":99999}]}`} {
		if err := os.WriteFile(cfg.Positions, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestRunFollowsAndStops(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Poll = 5 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- h.p.Run(ctx) }()
	h.append("a.log", "one\n")
	for h.p.Stats().Lines < 1 && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // polls
	}
	h.append("a.log", "two\n")
	for h.p.Stats().Lines < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // polls
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.want("one", "two")
}

func TestFromEndAndBounds(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.FromEnd, c.MaxFiles = true, 2 })
	h.append("a.log", "old\n")
	h.poll()
	h.append("a.log", "new\n")
	h.append("b.log", "later\n")
	h.poll()
	h.append("c.log", "too many\n")
	h.poll()
	h.poll()
	h.want("new", "later")
}

func TestEntriesOfText(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := parser{new(DefaultConfig())}
	for text, want := range map[string]string{
		"plain":                                     "info",
		"no error here":                             "info",
		"2026-03-01T12:00:00.5Z ERROR disk":         "error",
		"2026-03-01T11:00:00Z WARN late":            "warn 2026-03-01T11:00:00Z",
		"[2026-03-01 11:00:00,250 +0100] [DEBUG] x": "debug 2026-03-01T10:00:00.25Z",
		"2026-03-01T13:00:00+02:00: FATAL":          "fatal",
		"2026-03-01 11:00:00.000001Z INFO ERROR":    "info 2026-03-01T11:00:00.000001Z",
		`time=1 level=error msg="INFO"`:             "error",
		`xlevel=error level="warn" x`:               "warn",
		"TRACE\nERROR":                              "trace",
		"INFORMATION ERRORS":                        "info",
		"9999-99-99T99:99:99Z x":                    "info",
		"2026":                                      "info",
		strings.Repeat("x ", levelWithin) + "ERROR": "info",
		"\xff\xfe WARNING \xff":                     "warn",
	} {
		e := p.text([]byte(text), now)
		got := e.level.String()
		for _, kv := range e.props {
			got += " " + kv.Value
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestEntriesOfJSON(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cfg := DefaultConfig()
	p := parser{&cfg}
	f := func(text, want string) {
		t.Helper()
		e, ok := p.object([]byte(text), now)
		got := "none"
		if ok {
			props := map[string]string{}
			for _, kv := range e.props {
				props[kv.Key] = kv.Value
			}
			b, err := json.Marshal(props)
			if err != nil {
				t.Fatal(err)
			}
			got = fmt.Sprintf("%s %s %s", e.level, e.msg, b)
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
	f(`{"time":"2026-03-01T12:00:00Z","level":"ERROR","msg":"hi","user":"eve","n":1.50,"deep":{"a": [1, 2]},"ok":true,"no":null}`,
		`error hi {"deep":"{\"a\":[1,2]}","n":"1.50","no":"null","ok":"true","user":"eve"}`)
	f(`{"ts":1772366400.25,"severity":"Warning","message":"zap"}`, `warn zap {}`)
	f(`{"ts":1772362800000,"lvl":50,"message":"pino"}`, `error pino {"time":"2026-03-01T11:00:00Z"}`)
	f(`{"@timestamp":"1772362800000000000","level":7,"msg":"syslog"}`, `debug syslog {"time":"2026-03-01T11:00:00Z"}`)
	f(`{"time":"noon","level":"loud","msg":"odd"}`, `info odd {"level":"loud","time":"noon"}`)
	f(`  {"a":"b"} `, `info {"a":"b"} {"a":"b"}`)
	f(`{"msg":"\ud800 half","":"x"}`, "info \uFFFD half {}")
	f(`{"msg":1e400,"time":1e400}`, `info 1e400 {"time":"1e400"}`)
	for _, text := range []string{"", "{", "[]", `"x"`, `{"a":}`, `{} {}`, "text", strings.Repeat(`{"a":`, 20_000)} {
		f(text, "none")
	}
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, `,"k%02d":%q`, i, strings.Repeat("é", i*maxValueBytes/100))
	}
	e, ok := p.object([]byte(`{"msg":"x"`+many.String()+"}"), now)
	if !ok || len(e.props) != maxProps || e.leftOut != 36+13 {
		t.Errorf("%d properties, %d left out", len(e.props), e.leftOut)
	}
	cfg.Format = Text
	f(`{"msg":"x"}`, "none")
	cfg = DefaultConfig()
	cfg.MessageKeys, cfg.TimeKeys = []string{"text"}, nil
	f(`{"text":"own key","msg":"m","time":"2026-03-01T12:00:00Z"}`, `info own key {"msg":"m","time":"2026-03-01T12:00:00Z"}`)
}

func TestLinesThatShouldBeJSONAreCounted(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Format = JSON })
	h.append("a.log", `{"msg":"good","level":"warn"}`+"\nbad\n"+`{"msg":"good"}`+"\n")
	h.poll()
	h.want("good", "bad", "good")
	if n := h.p.Stats().Malformed; n != 1 {
		t.Errorf("%d malformed", n)
	}
	if l := h.logs(); l[0].Level != int32(sdk.Warn) {
		t.Errorf("%+v", l[0])
	}
}

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "no paths") {
		t.Error(err)
	}
	err := Config{Paths: []string{"[", "x"}, Format: "xml"}.Validate()
	for _, want := range []string{"no pattern", "no format", "no target", "poll", "max files", "lines of 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// FuzzLines feeds the same bytes at once and in pieces: the lines must be the same, and lie one behind the other.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\x00\x00three\nhalf"), uint8(3))
	f.Add([]byte(strings.Repeat("é", 100)+"\n\n"), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		split := func(step int) (all []string) {
			l := lines{max: minLineBytes}
			end := int64(0)
			for part := range slices.Chunk(data, step) {
				l.feed(part, func(x line) {
					if x.begin < end || len(x.text) > minLineBytes {
						t.Errorf("line at %d of %d bytes, the last ended at %d", x.begin, len(x.text), end)
					}
					end = x.begin + int64(len(x.text))
					all = append(all, fmt.Sprint(x.begin, x.cut, string(x.text)))
				})
			}
			if l.at != int64(len(data)) || l.begin > l.at {
				t.Errorf("at %d of %d, line begins at %d", l.at, len(data), l.begin)
			}
			return all
		}
		if diff := cmp.Diff(split(max(1, len(data))), split(1+int(step))); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzParse makes entries of anything.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"time":"2026-03-01T12:00:00Z","level":"ERROR","msg":"hi","deep":{"a":[1]}}`))
	f.Add([]byte("[2026-03-01 12:00:00,5] level=warn ERROR\n\tx"))
	f.Add([]byte("2026-03-01T12:00:00]"))
	p := parser{new(DefaultConfig())}
	f.Fuzz(func(t *testing.T, text []byte) {
		check := func(e entry) {
			if e.level < sdk.Fatal || e.level > sdk.Trace || len(e.props) > maxProps+1 {
				t.Errorf("%+v", e)
			}
		}
		check(p.text(text, time.Now()))
		if e, ok := p.object(text, time.Now()); ok {
			check(e)
		}
	})
}

// TestNothingIsLostOrDoubled plays a writer, a program that rotates, and restarts of the producer in a random order.
func TestNothingIsLostOrDoubled(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			h := newHarness(t, func(c *Config) {
				c.Positions = filepath.Join(filepath.Dir(c.Paths[0]), "positions")
				c.Paths = []string{strings.TrimSuffix(c.Paths[0], "*.log") + "a.log*"}
			})
			var ops []string
			var want []string
			shift := func() { // a.log.1 becomes a.log.2, and so on
				for i := 40; i > 0; i-- {
					if _, err := os.Stat(h.path(fmt.Sprint("a.log.", i))); err == nil {
						h.rename(fmt.Sprint("a.log.", i), fmt.Sprint("a.log.", i+1))
					}
				}
			}
			partial := false
			for range 60 {
				op := random.IntN(7)
				ops = append(ops, fmt.Sprint(op))
				switch op {
				case 0, 1: // whole lines
					for range 1 + random.IntN(200) {
						l := fmt.Sprintf("%06d of seed %d", len(want), seed)
						if partial {
							l, partial = "|"+l, false
							want[len(want)-1] += l
						} else {
							want = append(want, l)
						}
						h.append("a.log", l+"\n")
					}
				case 2: // and the begin of one
					if !partial {
						partial = true
						want = append(want, fmt.Sprintf("%06d is begun", len(want)))
						h.append("a.log", want[len(want)-1])
					}
				case 3:
					if !partial {
						shift()
						h.append("a.log", "")
						h.rename("a.log", "a.log.1")
					}
				case 4:
					if !partial {
						shift()
						h.append("a.log", "")
						h.copyTruncate("a.log", "a.log.1")
					}
				case 5:
					h.restart(func() {})
				}
				if random.IntN(3) > 0 {
					h.poll()
				}
			}
			h.append("a.log", "\n")
			h.poll()
			h.poll()
			var got []string
			for _, l := range h.logs() {
				got = append(got, l.Msg)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v\n%s", ops, diff)
			}
		})
	}
}
