package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Just-in-time views are asked for with requests to whichever process takes them: subject materialize, of one queue group. The answer is
// many messages to the asker's inbox: progress, as a sign of life too, and then the end, in parts of what one message may hold. The asker
// says that it is still there on the subject materialize.keep.<id of the request>.

const (
	materializeSubject = "materialize"
	materializeQueue   = "materializers"
	keepSubject        = "materialize.keep."
	partHeader         = "Materialize-Part" // number of this part, from 0, and of all: 0/3
)

// materializeTimes are how long the two sides wait for each other.
type materializeTimes struct {
	sign   time.Duration // between two signs of life
	silent time.Duration // after the last one the other side is taken for gone
	busy   time.Duration // before a process is asked again that was busy, or that gave up
}

func defaultMaterializeTimes() materializeTimes {
	return materializeTimes{sign: time.Second, silent: 3 * time.Second, busy: 100 * time.Millisecond}
}

// maxMaterializeTries bounds how often a request is sent: a process may stop, or die, each time.
const maxMaterializeTries = 8

// maxMaterializeParts bounds an answer: more is taken for damage. So many messages may wait for an asker who looks at them late, and as much
// progress as comes in a while beside; what has no place would be lost.
const (
	maxMaterializeParts = 256
	maxProgress         = 256
)

// MaterializeRequest asks for an instance of a just-in-time view to be brought up to date for a range.
type MaterializeRequest struct {
	View      string       `json:"view"`
	Instance  telemetry.ID `json:"-"` // a stream or a process, as the view's instances are
	Begin     int64        `json:"begin"`
	End       int64        `json:"end"`                  // event time in ns, both included
	Dry       bool         `json:"dry,omitempty"`        // say what it would cost, and build nothing; what costs nothing is answered in full
	MaxBlocks int64        `json:"max_blocks,omitempty"` // refuse to decode more; 0 = no limit
}

// MaterializedFile is a file to read.
type MaterializedFile struct {
	Key        string `json:"key"`
	Size       int64  `json:"size"`
	Rows       int64  `json:"rows"`
	MinTime    int64  `json:"min_time"`
	MaxTime    int64  `json:"max_time"`
	DepthShift int32  `json:"depth_shift,omitempty"` // to be added to the depth of rows that begin at ShiftFrom or later
	ShiftFrom  int64  `json:"shift_from,omitempty"`
}

// MaterializeProgress says how far the work has come.
type MaterializeProgress struct {
	Blocks  int64 `json:"blocks"`            // to decode
	Done    int64 `json:"done"`              // decoded
	Waiting bool  `json:"waiting,omitempty"` // for another process that builds the instance
}

// MaterializeReply says what to read: the rows of Files, in this order, and the spans that are open at the range's end, which no file has.
type MaterializeReply struct {
	CommitNo        int64              `json:"commit_no"` // of the catalog, at which none of Files was retired
	Files           []MaterializedFile `json:"files,omitempty"`
	Open            []telemetry.Span   `json:"open,omitempty"`
	Later           bool               `json:"later,omitempty"` // there are blocks behind those of the range's hours, which may end what is open
	Blocks          int64              `json:"blocks"`          // of the hours that the range touches
	BuiltBlocks     int64              `json:"built_blocks"`    // of a dry request: that would have to be decoded
	Objects         int64              `json:"objects"`         // events of Blocks
	Bytes           int64              `json:"bytes"`           // their bodies
	Partitions      int64              `json:"partitions"`
	FreshPartitions int64              `json:"fresh_partitions"`
	Warnings        []string           `json:"warnings,omitempty"`
}

// MaterializeCode says what kind of failure a MaterializeError is.
type MaterializeCode string

// The kinds of failures.
const (
	UnknownInstance MaterializeCode = "unknown_instance" // no such stream or process is registered
	UnknownView     MaterializeCode = "unknown_view"
	TooMuch         MaterializeCode = "too_much"    // more than MaxBlocks
	Busy            MaterializeCode = "busy"        // every process that was asked has enough to do
	Interrupted     MaterializeCode = "interrupted" // processes stopped or died at work, or the time was over
	Failed          MaterializeCode = "failed"
)

// MaterializeError is why a view could not be brought up to date.
type MaterializeError struct {
	Code    MaterializeCode `json:"code"`
	Message string          `json:"message"`
}

func (e *MaterializeError) Error() string { return e.Message }

// Retryable reports whether the same request may succeed a little later.
func (e *MaterializeError) Retryable() bool { return e.Code == Busy || e.Code == Interrupted }

// materializeMessage is a request on its way.
type materializeMessage struct {
	MaterializeRequest
	ID       string `json:"id"`
	Instance []byte `json:"instance"`
}

// materializeEnd is the end of an answer on its way.
type materializeEnd struct {
	Reply *MaterializeReply `json:"reply,omitempty"`
	Error *MaterializeError `json:"error,omitempty"`
}

// Materialize asks for a view and waits until it is there. progress, which may be nil, is called meanwhile, by this goroutine. When the
// process at work dies or stops, another one is asked. An error is a *MaterializeError, or wraps ErrNoOwner when no process takes requests.
func (b *Bus) Materialize(ctx context.Context, req MaterializeRequest, progress func(MaterializeProgress)) (MaterializeReply, error) {
	if progress == nil {
		progress = func(MaterializeProgress) {}
	}
	var until time.Time // a process is waited for
	if b.clustered() {
		until = time.Now().Add(ownerNews)
	}
	var err error
	for try := 0; try < maxMaterializeTries && ctx.Err() == nil && b.ctx.Err() == nil; {
		var reply MaterializeReply
		reply, err = b.askMaterializer(ctx, req, progress)
		var refused *MaterializeError
		switch {
		case err == nil:
			return reply, nil
		case errors.Is(err, nats.ErrNoResponders):
			if time.Now().After(until) {
				return reply, fmt.Errorf("materialize %s: %w", req.View, ErrNoOwner)
			}
			b.pause(ctx, ownerNews)
		case errors.As(err, &refused) && refused.Retryable():
			try++
			until = time.Now().Add(handOver)
			b.pause(ctx, b.materialize.busy*time.Duration(try))
		default:
			return reply, err
		}
	}
	if ctx.Err() != nil || err == nil {
		err = &MaterializeError{Code: Interrupted, Message: fmt.Sprintf("materialize %s: the time was over: %v", req.View, context.Cause(ctx))}
	}
	return MaterializeReply{}, err
}

// askMaterializer asks once.
func (b *Bus) askMaterializer(ctx context.Context, req MaterializeRequest, progress func(MaterializeProgress)) (MaterializeReply, error) {
	m := materializeMessage{MaterializeRequest: req, ID: nuid.Next(), Instance: req.Instance[:]}
	data, err := json.Marshal(&m)
	if err != nil {
		return MaterializeReply{}, err
	}
	interrupted := func(err error) error {
		return &MaterializeError{Code: Interrupted, Message: fmt.Sprintf("materialize %s: %v", req.View, err)}
	}
	inbox := b.nc.NewInbox()
	answers := make(chan *nats.Msg, maxMaterializeParts+maxProgress)
	sub, err := b.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return MaterializeReply{}, interrupted(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection may be gone
	if err := b.nc.PublishRequest(materializeSubject, inbox, data); err != nil {
		return MaterializeReply{}, interrupted(err)
	}
	sign := time.NewTicker(b.materialize.sign)
	defer sign.Stop()
	heard := time.Now()
	var parts answerParts
	for {
		select {
		case <-ctx.Done():
			_ = b.nc.Publish(keepSubject+m.ID, goneSign) // else its silence says so
			return MaterializeReply{}, interrupted(context.Cause(ctx))
		case <-b.ctx.Done():
			return MaterializeReply{}, interrupted(ErrClosed)
		case <-sign.C:
			if time.Since(heard) > b.materialize.silent {
				return MaterializeReply{}, interrupted(errors.New("the process at work does not answer any more"))
			}
			if err := b.nc.Publish(keepSubject+m.ID, nil); err != nil {
				return MaterializeReply{}, interrupted(err)
			}
		case msg := <-answers:
			heard = time.Now()
			if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
				return MaterializeReply{}, nats.ErrNoResponders
			}
			end, err := parts.take(msg, progress)
			if err != nil {
				return MaterializeReply{}, &MaterializeError{Code: Failed, Message: fmt.Sprintf("materialize %s: answer: %v", req.View, err)}
			}
			if end != nil && end.Error != nil {
				return MaterializeReply{}, end.Error
			}
			if end != nil && end.Reply != nil {
				return *end.Reply, nil
			}
		}
	}
}

// answerParts puts the parts of an answer together.
type answerParts struct{ list [][]byte }

// take takes a message of an answer, and returns its end when it is complete.
func (a *answerParts) take(msg *nats.Msg, progress func(MaterializeProgress)) (*materializeEnd, error) {
	part := msg.Header.Get(partHeader)
	if part == "" {
		var p MaterializeProgress
		if err := json.Unmarshal(msg.Data, &p); err != nil {
			return nil, err
		}
		progress(p)
		return nil, nil //nolint:nilnil // not at its end yet
	}
	var n, of int
	if _, err := fmt.Sscanf(part, "%d/%d", &n, &of); err != nil || n != len(a.list) || of <= n || of > maxMaterializeParts {
		return nil, fmt.Errorf("part %q after %d", part, len(a.list))
	}
	if a.list = append(a.list, msg.Data); len(a.list) < of {
		return nil, nil //nolint:nilnil // see above
	}
	end := &materializeEnd{}
	return end, json.Unmarshal(bytes.Join(a.list, nil), end)
}

// MaterializeHandler does what a request asks for. Its context ends when the asker is gone. It may call progress at any time, from any
// goroutine, until it returns. An error that is no *MaterializeError is answered as Failed.
type MaterializeHandler func(ctx context.Context, req MaterializeRequest, progress func(MaterializeProgress)) (MaterializeReply, error)

// materializeServer answers requests.
type materializeServer struct {
	bus      *Bus
	handle   MaterializeHandler
	ctx      context.Context // ends with stop
	places   chan struct{}   // one token per running handler
	handlers sync.WaitGroup
}

// goneSign is what an asker says in the place of a sign of life when it does not wait any more.
var goneSign = []byte("gone")

// errStopped is why the work of a process that stops ends.
var errStopped = errors.New("the process at work stops")

// errAskerGone is why work ends for which nobody waits.
var errAskerGone = errors.New("the asker is gone")

// ServeMaterialize answers requests with h, up to Config.MaxMaterializes of them at once, until stop, which returns when no h runs any more.
func (b *Bus) ServeMaterialize(h MaterializeHandler) (stop func(), err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &materializeServer{bus: b, handle: h, ctx: ctx, places: make(chan struct{}, b.cfg.MaxMaterializes)}
	sub, err := b.nc.QueueSubscribe(materializeSubject, materializeQueue, s.accept)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("serve just-in-time views: %w", err)
	}
	if err := b.nc.FlushTimeout(apiTimeout); err != nil {
		b.log.Debug("subscription of just-in-time views not confirmed", "error", err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			_ = sub.Unsubscribe() // the connection may be gone
			cancel(errStopped)
			s.quit()
		})
	}, nil
}

// quit waits until no handler runs, by taking all their places for good.
func (s *materializeServer) quit() {
	for range cap(s.places) {
		s.places <- struct{}{}
	}
	s.handlers.Wait()
}

// accept runs the handler for one request, in a goroutine of its own.
func (s *materializeServer) accept(msg *nats.Msg) {
	var m materializeMessage
	if err := json.Unmarshal(msg.Data, &m); err != nil || len(m.Instance) != len(telemetry.ID{}) || m.ID == "" {
		s.end(msg, nil, &MaterializeError{Code: Failed, Message: "request for a view not understood"})
		return
	}
	select {
	case s.places <- struct{}{}:
	case <-s.ctx.Done():
		s.end(msg, nil, &MaterializeError{Code: Interrupted, Message: errStopped.Error()})
		return
	default:
		s.end(msg, nil, &MaterializeError{Code: Busy, Message: fmt.Sprintf("%d requests for views are being worked on", cap(s.places))})
		return
	}
	req := m.MaterializeRequest
	req.Instance = telemetry.ID(m.Instance)
	s.handlers.Go(func() {
		defer func() { <-s.places }()
		s.serve(msg, m.ID, req)
	})
}

// serve works on one request while its asker is there.
func (s *materializeServer) serve(msg *nats.Msg, id string, req MaterializeRequest) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	var heard atomic.Int64
	heard.Store(time.Now().UnixNano())
	sub, err := s.bus.nc.Subscribe(keepSubject+id, func(sign *nats.Msg) {
		if bytes.Equal(sign.Data, goneSign) {
			cancel(errAskerGone)
		}
		heard.Store(time.Now().UnixNano())
	})
	if err != nil {
		s.end(msg, nil, &MaterializeError{Code: Interrupted, Message: err.Error()})
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection may be gone
	t := &teller{server: s, msg: msg}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx, t, &heard, cancel)
	}()
	reply, err := s.handle(ctx, req, t.tell)
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	if err == nil {
		s.end(msg, &reply, nil)
		return
	}
	var refused *MaterializeError
	if !errors.As(err, &refused) {
		refused = &MaterializeError{Code: Failed, Message: err.Error()}
	}
	if cause != nil {
		refused = &MaterializeError{Code: Interrupted, Message: cause.Error()}
	}
	s.end(msg, nil, refused)
}

// watch sends signs of life, and ends the work when the asker gives none.
func (s *materializeServer) watch(ctx context.Context, t *teller, heard *atomic.Int64, gone func(error)) {
	times := s.bus.materialize
	sign := time.NewTicker(times.sign)
	defer sign.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sign.C:
			if time.Since(time.Unix(0, heard.Load())) > times.silent {
				gone(errAskerGone)
				return
			}
			t.repeat(times.sign)
		}
	}
}

// teller sends progress to an asker.
type teller struct {
	server *materializeServer
	msg    *nats.Msg

	mu   sync.Mutex
	last MaterializeProgress
	at   time.Time
}

func (t *teller) tell(p MaterializeProgress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.at = p, time.Now()
	t.send()
}

// repeat sends the last progress again, unless some was sent a moment ago.
func (t *teller) repeat(pause time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.at) >= pause*9/10 {
		t.send()
	}
}

func (t *teller) send() {
	data, err := json.Marshal(t.last)
	if err == nil {
		err = t.msg.Respond(data)
	}
	if err != nil {
		t.server.bus.log.Debug("progress not told", "error", err)
	}
}

// end sends the end of an answer.
func (s *materializeServer) end(msg *nats.Msg, reply *MaterializeReply, refused *MaterializeError) {
	data, err := json.Marshal(materializeEnd{reply, refused})
	room := max(1, s.bus.cfg.MaxFrame) // a message of a frame fits
	of := (len(data) + room - 1) / room
	if of > maxMaterializeParts {
		data, err = json.Marshal(materializeEnd{nil, &MaterializeError{Code: TooMuch, Message: fmt.Sprintf("%d files are too many for one answer: ask for a smaller range", len(reply.Files))}})
		of = 1
	}
	for n := 0; n < of && err == nil; n++ {
		part := nats.NewMsg(msg.Reply)
		part.Header.Set(partHeader, strconv.Itoa(n)+"/"+strconv.Itoa(of))
		part.Data = data[n*room : min(len(data), (n+1)*room)]
		err = msg.RespondMsg(part)
	}
	if err != nil {
		s.bus.log.Warn("request for a view not answered", "error", err)
	}
}
