package sdk

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// How the recorder works.
const (
	drainEvery = 100 * time.Millisecond // events are taken from lanes and tracks so often
	countEvery = time.Second            // counters are recorded so often
)

// recorder takes events from lanes and tracks, makes blocks of them and gives these to the sink. All is done by one goroutine.
type recorder struct {
	cfg          Config
	sink         Sink
	journal      Journal // nil = the sink has none
	process      telemetry.Process
	registration []byte // the body of insert_process
	clock        *clock

	logs, metrics, async, images *builder

	wake     chan struct{}
	requests chan chan struct{} // asks for a flush; closed when done
	stop     chan struct{}
	stopped  chan struct{}

	all     []*site       // of this drain
	sets    []*Properties // of this drain
	formats map[uint32][]segment
	message []byte
	counted map[*Counter]uint64 // what is recorded
	lastAt  int64               // of the last count
	dropped [NumClasses]int64   // what of the sink's drops is recorded

	imagesMu    sync.Mutex
	imagesQueue []image
	imagesBytes int
}

func newRecorder(cfg Config, process telemetry.Process, c *clock) *recorder {
	r := &recorder{
		cfg: cfg, sink: cfg.Sink, process: process, registration: wire.AppendProcess(nil, &process), clock: c,
		wake: make(chan struct{}, 1), requests: make(chan chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{}),
		formats: map[uint32][]segment{}, counted: map[*Counter]uint64{},
	}
	r.journal, _ = cfg.Sink.(Journal)
	r.logs = r.builder(ClassLogs, telemetry.TagLog, cfg.LogAge, nil)
	r.metrics = r.builder(ClassMetrics, telemetry.TagMetrics, cfg.MetricAge, nil)
	r.async = r.builder(ClassSpans, telemetry.TagCPU, cfg.SpanAge, []telemetry.Property{{Key: "thread-id", Value: "0"}, {Key: "thread-name", Value: "async"}})
	r.images = r.builder(ClassSpans, telemetry.TagImage, cfg.SpanAge, nil)
	return r
}

func (r *recorder) builder(class Class, tag telemetry.Tag, age time.Duration, props []telemetry.Property) *builder {
	return newBuilder(r, class, tag, &r.process, props, r.cfg.BlockBytes, age)
}

// register implements output.
func (r *recorder) register(b *builder) {
	r.sink.Send(Request{Kind: KindStream, Class: ClassMetadata, Body: b.registration, ProcessID: r.process.ID, StreamID: b.stream.ID})
}

// send implements output.
func (r *recorder) send(b *builder, body []byte) {
	r.sink.Send(Request{
		Kind: KindBlock, Class: b.class, Body: body, Events: int(b.block.NbObjects), ProcessID: r.process.ID, StreamID: b.stream.ID, BlockID: b.block.ID,
	})
	if r.journal != nil {
		r.journal.Cut(b.stream.ID)
	}
}

// run is the recorder's goroutine.
func (r *recorder) run() {
	defer close(r.stopped)
	defer r.survive()
	ticker := time.NewTicker(drainEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.drain(false)
		case <-r.wake:
			r.drain(false)
		case done := <-r.requests:
			r.drain(true)
			close(done)
		case <-r.stop:
			r.drain(true)
			return
		}
	}
}

// survive turns recording off when something here or in the sink panicked: the program is not to end for it.
func (r *recorder) survive() {
	if recover() == nil {
		return
	}
	drops.add(dropBroken, 1)
	registry.set(func(l *limits) { l.running = false })
}

// flush has everything recorded before given to the sink.
func (r *recorder) flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case r.requests <- done:
	case <-r.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-r.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain takes what there is; blocks that are full or old go to the sink, or all.
func (r *recorder) drain(all bool) {
	now := r.clock.read()
	r.refresh()
	for i := range lanesUsed.Load() {
		lanes[i].drain(r.laneRecords)
	}
	r.drainTracks(now, all)
	r.drainImages(now)
	if all || now-r.lastAt >= int64(countEvery) {
		r.lastAt = now
		r.count(now)
	}
	for _, b := range []*builder{r.logs, r.metrics, r.async, r.images} {
		if all {
			b.cut(now)
		} else {
			b.cutOld(now)
		}
		r.keep(b)
	}
}

// keep has the journal keep what came to an open block.
func (r *recorder) keep(b *builder) {
	if r.journal != nil {
		b.keep(r.journal, r.registration)
	}
}

// refresh sees sites and sets that were made since.
func (r *recorder) refresh() { r.all, r.sets = registry.snapshot(), setsSnapshot() }

// siteOf returns the site of a record.
func (r *recorder) siteOf(h head) *site {
	if int(h.site()) >= len(r.all) {
		r.refresh() // declared since, and used at once
	}
	if int(h.site()) >= len(r.all) {
		return nil
	}
	return r.all[h.site()]
}

// propsOf returns a set by its number.
func (r *recorder) propsOf(no uint64) *Properties {
	if no >= uint64(len(r.sets)) {
		r.refresh()
	}
	if no >= uint64(len(r.sets)) {
		return nil
	}
	return r.sets[no]
}

// event is a record of a lane, taken apart.
type event struct {
	head  head
	ns    int64
	site  *site
	props *Properties
	trace traceID
	span  uint64
	rest  []uint64

	inline []uint64 // properties in the record, of kindLogProps
}

// laneRecords takes records of a lane.
func (r *recorder) laneRecords(w []uint64) {
	for len(w) >= 2 {
		h := head(w[0])
		n := h.words()
		if n < 2 || n > len(w) {
			drops.add(dropInvalid, 1)
			return
		}
		r.laneRecord(h, w[:n])
		w = w[n:]
	}
}

func (r *recorder) laneRecord(h head, w []uint64) {
	e := event{head: h, ns: r.clock.ns(int64(w[1])), site: r.siteOf(h), rest: w[2:]}
	if e.site == nil {
		drops.add(dropInvalid, 1)
		return
	}
	if h.has(flagHasProps) && len(e.rest) >= 1 {
		e.props, e.rest = r.propsOf(e.rest[0]), e.rest[1:]
	}
	if h.has(flagHasTrace) && len(e.rest) >= 3 {
		e.trace, e.span, e.rest = traceID{e.rest[0], e.rest[1]}, e.rest[2], e.rest[3:]
	}
	switch h.kind() {
	case kindInt, kindFloat:
		if len(e.rest) == 1 {
			r.measure(&e)
			return
		}
	case kindLog:
		r.log(&e, r.static(e.site))
		return
	case kindLogArgs:
		r.message = appendMessage(r.message[:0], r.format(e.site), e.rest)
		r.log(&e, unsafe.String(unsafe.SliceData(r.message), len(r.message))) // nobody keeps it: blocks get a copy
		return
	case kindLogText:
		if len(e.rest) >= 1 && int(e.rest[0]) <= (len(e.rest)-1)*wordBytes {
			r.logText(&e)
			return
		}
	case kindLogProps:
		if r.logInline(&e) {
			return
		}
	default:
		if r.asyncRecord(&e) {
			return
		}
	}
	drops.add(dropInvalid, 1)
}

func (r *recorder) measure(e *event) {
	b, v := r.metrics, e.rest[0]
	desc := b.site(e.site)
	switch isInt := e.head.kind() == kindInt; {
	case isInt && e.props == nil:
		b.objs = wire.AppendIntegerMetric(b.objs, desc, e.ns, v)
	case isInt:
		b.objs = wire.AppendTaggedIntegerMetric(b.objs, desc, b.set(e.props), e.ns, v)
	case e.props == nil:
		b.objs = wire.AppendFloatMetric(b.objs, desc, e.ns, math.Float64frombits(v))
	default:
		b.objs = wire.AppendTaggedFloatMetric(b.objs, desc, b.set(e.props), e.ns, math.Float64frombits(v))
	}
	b.added(e.ns)
}

// count records what counters counted, and what the sink dropped.
func (r *recorder) count(now int64) {
	if all := counters.Load(); all != nil {
		for _, c := range *all {
			sum := c.sum()
			if d := sum - r.counted[c]; d != 0 {
				r.counted[c] = sum
				r.metrics.objs = wire.AppendIntegerMetric(r.metrics.objs, r.metrics.site(&c.site), now, d)
				r.metrics.added(now)
			}
		}
	}
	var dropped [NumClasses]int64
	for _, d := range r.sink.Stats().Drops {
		if int(d.Class) < NumClasses {
			dropped[d.Class] += d.Requests
		}
	}
	for c, n := range dropped {
		if d := n - r.dropped[c]; d > 0 {
			r.dropped[c] = n
			r.metrics.objs = wire.AppendIntegerMetric(r.metrics.objs, r.metrics.site(&droppedSites[c].site), now, uint64(d))
			r.metrics.added(now)
		}
	}
}

// droppedSites are the measures of requests that the sink dropped, named as those of other clients.
var droppedSites = func() (all [NumClasses]*IntMeasure) {
	for c := range all {
		all[c] = NewInt("telemetry_dropped_"+Class(c).String(), "count", WithVerbosity(MinVerbosity))
	}
	return all
}()

// static returns the message of a site without arguments: %% is % there too.
func (r *recorder) static(s *site) string { return s.texts[0].s }

// format returns the format of a site, parsed.
func (r *recorder) format(s *site) []segment {
	f, ok := r.formats[s.id]
	if !ok {
		f = parseFormat(s.texts[0].s)
		r.formats[s.id] = f
	}
	return f
}

// log appends an entry with a message.
func (r *recorder) log(e *event, msg string) {
	b := r.logs
	desc := b.site(e.site)
	props := r.logProps(b, e)
	switch {
	case props != 0:
		b.objs = wire.AppendLogTagged(b.objs, desc, props, e.ns, r.clean(msg))
	case e.head.kind() == kindLog:
		b.objs = wire.AppendLogStaticStr(b.objs, desc, e.ns)
	default:
		b.objs = wire.AppendLogString(b.objs, desc, e.ns, r.clean(msg))
	}
	b.added(e.ns)
}

func (r *recorder) logText(e *event) {
	msg := ""
	if n := int(e.rest[0]); n > 0 {
		msg = textIn(e.rest[1:], n)
	}
	r.log(e, msg)
}

// clean returns a message as rows may hold it.
func (r *recorder) clean(msg string) string {
	msg, cut := wire.CleanMessage(msg)
	if cut {
		drops.add(dropCut, 1)
	}
	return msg
}

// logProps returns the id of an entry's properties in a block, 0 = it has none.
func (r *recorder) logProps(b *builder, e *event) uint64 {
	if len(e.inline) > 0 {
		return b.inlineSet(e)
	}
	if !e.head.has(flagHasTrace) {
		if e.props == nil {
			return 0
		}
		return b.set(e.props)
	}
	b.traces[e.trace] = true
	key := setKey{trace: e.trace, span: e.span}
	if e.props != nil {
		key.props = e.props.no + 1
	}
	id, ok := b.sets[key]
	if !ok {
		id = b.ownSet(e.props.merged(spanProps(e)))
		b.sets[key] = id
	}
	return id
}

// spanProps are the properties of an entry inside a span.
func spanProps(e *event) []telemetry.Property {
	return []telemetry.Property{{Key: "span_id", Value: strconv.FormatUint(e.span, 10)}, {Key: "trace_id", Value: e.trace.String()}}
}

// asyncRecord appends an edge or properties of a span in a context; false = it is not one.
func (r *recorder) asyncRecord(e *event) bool {
	b := r.async
	switch e.head.kind() {
	case kindAsyncBegin, kindAsyncEnd:
		if len(e.rest) < 3 || int(e.rest[2]) > (len(e.rest)-3)*wordBytes {
			return false
		}
		r.asyncEdge(b, e)
	case kindAsyncProps:
		if e.props == nil {
			return false
		}
		b.objs = wire.AppendSpanProperties(b.objs, wire.SpanAsyncProperties, e.span, b.set(e.props), e.ns)
	case kindAsyncProp:
		p, ok := propertyIn(e.rest)
		if !ok {
			return false
		}
		b.objs = wire.AppendSpanProperties(b.objs, wire.SpanAsyncProperties, e.span, b.ownSet([]telemetry.Property{cleanProperty(p)}), e.ns)
	default:
		return false
	}
	b.traces[e.trace] = true
	b.added(e.ns)
	return true
}

// asyncEdge appends an edge, and at the begin of a trace its id. The caller counts one event.
func (r *recorder) asyncEdge(b *builder, e *event) {
	s := wire.AsyncSpan{ID: e.span, Parent: e.rest[0], Depth: uint32(e.rest[1])}
	remote := uint64(0)
	if s.Depth == 0 {
		remote, s.Parent = s.Parent, 0
	}
	begin := e.head.kind() == kindAsyncBegin
	desc := b.site(e.site)
	if e.site.text == "" {
		name := b.ownText(nameIn(e.rest[3:], int(e.rest[2])))
		index := uint8(wire.CPUEndAsyncNamedSpan)
		if begin {
			index = wire.CPUBeginAsyncNamedSpan
		}
		b.objs = wire.AppendAsyncNamedSpan(b.objs, index, desc, name, s, e.ns)
	} else {
		index := uint8(wire.CPUEndAsyncSpan)
		if begin {
			index = wire.CPUBeginAsyncSpan
		}
		b.objs = wire.AppendAsyncSpan(b.objs, index, desc, s, e.ns)
	}
	if !begin || s.Depth != 0 {
		return
	}
	b.added(e.ns)
	keys, values := traceKeys[:1], []string{e.trace.String()}
	if remote != 0 {
		keys, values = traceKeys[:], append(values, hex16(remote))
	}
	b.objs = wire.AppendSpanProperties(b.objs, wire.SpanAsyncProperties, e.span, b.newSet(keys, values), e.ns)
}

// traceKeys are the properties of a span that begins a trace here.
var traceKeys = [...]text{intern("trace_id"), intern("remote_parent")}

// nameIn returns a name in a record, cleaned.
func nameIn(w []uint64, n int) string {
	if n == 0 {
		return ""
	}
	name, cut, nuls := wire.CleanName(validText(textIn(w, n)))
	if cut || nuls {
		drops.add(dropCut, 1)
	}
	return name
}

// propertyIn returns a property in a record.
func propertyIn(w []uint64) (p telemetry.Property, ok bool) {
	if len(w) < 2 {
		return p, false
	}
	nKey, nValue := int(w[0]), int(w[1])
	keyWords := (nKey + wordBytes - 1) / wordBytes
	valueWords := (nValue + wordBytes - 1) / wordBytes
	if nKey < 0 || nValue < 0 || nKey > maxSpanName || nValue > maxArgText || 2+keyWords+valueWords > len(w) {
		return p, false
	}
	if nKey > 0 {
		p.Key = textIn(w[2:], nKey)
	}
	if nValue > 0 {
		p.Value = textIn(w[2+keyWords:], nValue)
	}
	return p, true
}
