package deploy_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// The statements that read views of spans as the model prints them, and a range that holds all captures.
const (
	threadSQL = `SELECT id, parent, depth, hash, begin, "end", duration, name, target, filename, line FROM view_instance('thread_spans', '%s')`
	asyncSQL  = `SELECT stream_id, block_id, time, event_type, span_id, parent_span_id, depth, hash, name, filename, target, line FROM view_instance('async_events', '%s')`
	netSQL    = `SELECT span_id, parent_span_id, depth, kind, name, connection_name, is_outgoing, begin_bits, end_bits, bit_size, begin_time, end_time FROM view_instance('net_spans', '%s')`
	imageSQL  = `SELECT stream_id, time, name, format, payload_size, data FROM view_instance('images', '%s')`
	allBegin  = "2020-01-01T00:00:00Z"
	allEnd    = "2030-01-01T00:00:00Z"
)

// between runs sql over all captures and returns its rows as text, in the order in which they came.
func (r *pythonReader) between(sql string) []string {
	r.t.Helper()
	a := r.ask(sql, allBegin, allEnd)
	if a.Error != "" {
		r.t.Fatalf("%s: %s", sql, a.Error)
	}
	lines := make([]string, len(a.Rows))
	for i, row := range a.Rows {
		cells := make([]string, len(row))
		for c, v := range row {
			cells[c] = fmt.Sprint(v)
		}
		lines[i] = line(cells...)
	}
	return lines
}

// modelSpan is a span of the model's tree.
type modelSpan struct {
	id, begin, end int64
	scope          wire.Scope
	children       []*modelSpan
}

// scopeOfEvent reads the scope of a decoded event: from its record, or from its location and its own name.
func scopeOfEvent(o map[string]any) wire.Scope {
	desc, _ := o["thread_span_desc"].(map[string]any)
	if desc == nil {
		desc, _ = o["span_desc"].(map[string]any)
	}
	name := text(desc, "name")
	if desc == nil {
		if desc, _ = o["thread_span_location"].(map[string]any); desc == nil {
			desc, _ = o["span_location"].(map[string]any)
		}
		name = text(o, "name")
	}
	s := wire.Scope{Name: name, Target: text(desc, "target"), Filename: text(desc, "file"), Line: uint32(integer(desc["line"]))}
	s.Hash = wire.ScopeHash(s.Name, s.Filename, s.Target, s.Line)
	return s
}

// processClock is the clock of a process: estimated from the latest end of all its blocks.
func processClock(t *testing.T, p map[string]any, blocks []decoded) clock {
	var latest envelope
	ticks, end := int64(math.MinInt64), ""
	for _, b := range blocks {
		if n := integer(b.Envelope.EndTicks); n > ticks {
			ticks, latest = n, b.Envelope
		}
		end = max(end, b.Envelope.EndTime)
	}
	latest.EndTime = end
	return clockOf(t, p, latest)
}

// modelTrees builds the trees of a stream's blocks as the published description does: nodes with children, chain by chain.
func modelTrees(c clock, root wire.Scope, blocks []decoded, ticks map[string][2]int64, offsets map[string]int64) []string {
	slices.SortFunc(blocks, func(a, b decoded) int {
		x, y := ticks[a.Envelope.BlockID], ticks[b.Envelope.BlockID]
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]))
	})
	var out []string
	for len(blocks) > 0 {
		n, end := 1, ticks[blocks[0].Envelope.BlockID][1]
		for n < len(blocks) && ticks[blocks[n].Envelope.BlockID][0] <= end {
			end = max(end, ticks[blocks[n].Envelope.BlockID][1])
			n++
		}
		begin := ticks[blocks[0].Envelope.BlockID][0]
		out = append(out, modelChain(c, root, blocks[:n], c.time(begin+c.startTicks), c.time(end+c.startTicks), offsets)...)
		blocks = blocks[n:]
	}
	return out
}

func modelChain(c clock, root wire.Scope, blocks []decoded, r0, r1 int64, offsets map[string]int64) []string {
	var stack []*modelSpan
	attach := func(s *modelSpan) {
		if len(stack) == 0 {
			stack = append(stack, &modelSpan{id: -1, scope: root, begin: r0, end: r1})
		}
		top := stack[len(stack)-1]
		top.children = append(top.children, s)
	}
	for _, b := range blocks {
		for i, o := range b.Objects {
			kind := text(o, "__type")
			if !strings.Contains(kind, "Thread") {
				continue
			}
			at, id, scope := c.time(integer(o["time"])), offsets[b.Envelope.BlockID]+int64(i), scopeOfEvent(o)
			switch {
			case at < r0 || at > r1:
			case strings.HasPrefix(kind, "Begin"):
				stack = append(stack, &modelSpan{id: id, scope: scope, begin: at, end: r1})
			case len(stack) == 0:
				attach(&modelSpan{id: id, scope: scope, begin: r0, end: at})
			default:
				top := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				if top.scope.Hash != scope.Hash { // only the root is left
					top.id, top.scope = id, scope
				}
				top.end = at
				attach(top)
			}
		}
	}
	for len(stack) > 1 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		stack[len(stack)-1].children = append(stack[len(stack)-1].children, top)
	}
	if len(stack) == 0 {
		return nil
	}
	return stack[0].lines(nil, 0, 0)
}

func (s *modelSpan) lines(out []string, parent int64, depth int) []string {
	out = append(out, line(fmt.Sprint(s.id), fmt.Sprint(parent), fmt.Sprint(depth), fmt.Sprint(s.scope.Hash), fmt.Sprint(s.begin), fmt.Sprint(s.end),
		fmt.Sprint(s.end-s.begin), s.scope.Name, s.scope.Target, s.scope.Filename, fmt.Sprint(s.scope.Line)))
	for _, c := range s.children {
		out = c.lines(out, s.id, depth+1)
	}
	return out
}

// model is what views of spans must hold after some requests.
type model struct {
	threads map[string][]string // by stream, in order
	asyncs  map[string][]string // by process, sorted
}

func modelOf(t *testing.T, requests []request) model {
	processes, streams, blocks := map[string]map[string]any{}, map[string]map[string]any{}, map[string][]decoded{}
	ticks, offsets := map[string][2]int64{}, map[string]int64{}
	byProcess := map[string][]decoded{}
	for _, r := range requests {
		switch r.route {
		case "insert_process":
			processes[text(r.want.Body, "process_id")] = r.want.Body
		case "insert_stream":
			streams[text(r.want.Body, "stream_id")] = r.want.Body
		case "insert_block":
			b, _, err := wire.DecodeBlockEnvelope(r.body)
			if err != nil {
				t.Fatal(err)
			}
			e := r.want.Envelope
			ticks[e.BlockID], offsets[e.BlockID] = [2]int64{b.BeginTicks, b.EndTicks}, b.ObjectOffset
			byProcess[e.ProcessID] = append(byProcess[e.ProcessID], r.want)
			if r.want.Tags[0] == "cpu" {
				blocks[e.StreamID] = append(blocks[e.StreamID], r.want)
			}
		}
	}
	m := model{threads: map[string][]string{}, asyncs: map[string][]string{}}
	for stream, list := range blocks {
		process := list[0].Envelope.ProcessID
		c := processClock(t, processes[process], byProcess[process])
		props := stringMap(streams[stream]["properties"])
		name := cmp.Or(props["thread-id"], stream)
		if props["thread-name"] != "" {
			name = props["thread-name"] + "-" + name
		}
		m.threads[stream] = modelTrees(c, wire.Scope{Name: name, Hash: wire.ScopeHash(name, "", "", 0)}, list, ticks, offsets)
		m.asyncs[process] = append(m.asyncs[process], modelAsyncs(c, list)...)
	}
	for _, list := range m.asyncs {
		slices.Sort(list)
	}
	return m
}

func modelAsyncs(c clock, blocks []decoded) (out []string) {
	for _, b := range blocks {
		for _, o := range b.Objects {
			kind := text(o, "__type")
			if !strings.Contains(kind, "Async") {
				continue
			}
			event := "end"
			if strings.HasPrefix(kind, "Begin") {
				event = "begin"
			}
			s := scopeOfEvent(o)
			out = append(out, line(b.Envelope.StreamID, strings.ToLower(b.Envelope.BlockID), fmt.Sprint(c.time(integer(o["time"]))), event, text(o, "span_id"),
				text(o, "parent_span_id"), text(o, "depth"), fmt.Sprint(s.Hash), s.Name, s.Filename, s.Target, fmt.Sprint(s.Line)))
		}
	}
	return out
}

// TestRecordedSpansReadBack posts what real clients sent and reads spans, images and network spans back with the unmodified Python client: in
// recorded order and with every request twice and shuffled, and again when more has come.
func TestRecordedSpansReadBack(t *testing.T) {
	var recorded []request
	for _, name := range []string{"spans", "synthetic_unreal", "images"} {
		recorded = append(recorded, readScenario(t, name)...)
	}
	want := modelOf(t, recorded)
	for name, requests := range map[string][]request{"recorded order": recorded, "twice, shuffled": shuffled(recorded, 3)} {
		t.Run(name, func(t *testing.T) {
			querytest.EachHome(t, deploytest.NewDataDir, func(t *testing.T, h *querytest.Home) {
				p := startServeAt(t, h)
				py := startPython(t, p)
				half := len(requests) / 2
				postAll(t, p, requests[:half])
				for stream := range want.threads { // build of what is there; streams that are not known yet are an error
					py.ask(fmt.Sprintf(threadSQL, stream), allBegin, allEnd)
				}
				postAll(t, p, requests[half:])
				checkSpans(t, py, want)
			})
		})
	}
}

func checkSpans(t *testing.T, py *pythonReader, want model) {
	rows := 0
	for stream, lines := range want.threads {
		compare(t, "thread_spans of "+stream, py.between(fmt.Sprintf(threadSQL, stream)), lines)
		rows += len(lines)
	}
	if rows < 60 {
		t.Errorf("only %d rows of spans are expected", rows)
	}
	for process, lines := range want.asyncs {
		got := py.between(fmt.Sprintf(asyncSQL, process))
		slices.Sort(got)
		compare(t, "async_events of "+process, got, lines)
	}
	checkPublishedRows(t, py)
}

// checkPublishedRows compares with the rows that the published description lists.
func checkPublishedRows(t *testing.T, py *pythonReader) {
	first := py.between("SELECT id, parent, depth, begin, name, line, hash FROM view_instance('thread_spans', 'c1b57326-ea37-4160-9c80-a15dcd737332')")
	compare(t, "the begins of the first thread", []string{first[0], first[1], first[6]}, []string{
		"-1 | 0 | 0 | 1795212286529377178 | main-140584621284864 | 0 | 2424281629",
		"0 | -1 | 1 | 1795212286529493682 | vectors_rs::outer | 182 | 2408230528",
		"9 | 0 | 2 | " + strings.Split(first[6], " | ")[3] + " | even named | 186 | 906972029",
	})
	if len(first) != 11 {
		t.Errorf("the first thread has %d rows, want 11", len(first))
	}
	const with = "SELECT DISTINCT process_id FROM streams WHERE array_has(tags, '%s')"
	game := py.between(fmt.Sprintf(with, "net"))
	if len(game) != 1 {
		t.Fatalf("processes with network traffic: %v", game)
	}
	compare(t, "net_spans", py.between(fmt.Sprintf(netSQL, game[0])+" ORDER BY span_id"), []string{
		"0 | -1 | 0 | connection | IpConnection_0 | IpConnection_0 | true | 0 | 128 | 128 | 1735787045778000000 | 1735787045838000000",
		"1 | 0 | 1 | object | BP_Pawn_C_1 | IpConnection_0 | true | 0 | 128 | 128 | 1735787045788000000 | 1735787045828000000",
		"2 | 1 | 2 | property | Health | IpConnection_0 | true | 0 | 32 | 32 | 1735787045798000000 | 1735787045798000000",
		"3 | 1 | 2 | rpc | ServerFire | IpConnection_0 | true | 32 | 96 | 64 | 1735787045808000000 | 1735787045818000000",
	})
	images := py.between(fmt.Sprintf(imageSQL, game[0]))
	if len(images) != 1 || !strings.Contains(images[0], " | 1735787045778000000 | screenshot | jpg | ") {
		t.Errorf("images of the game: %v", images)
	}
	pictures := py.between(fmt.Sprintf(with, "image"))
	if len(pictures) != 2 {
		t.Errorf("processes with images: %v", pictures)
	}
	for _, process := range pictures {
		if rows := py.between(fmt.Sprintf(imageSQL, process)); len(rows) == 0 {
			t.Errorf("no images of process %s", process)
		}
	}
}
