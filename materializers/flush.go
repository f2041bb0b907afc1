package materializers

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// flushWait is a flush request that waits for its answer.
type flushWait struct {
	req   bus.FlushRequest
	head  bus.Position // to be read before the answer
	reply chan bus.FlushReply
}

// maxFlushWait bounds a request whose caller sent no deadline.
const maxFlushWait = 30 * time.Second

// serveFlush answers one request: when everything up to the head at its arrival is read, and what meets the request is
// committed. It runs in the bus's goroutines.
func (o *owner) serveFlush(ctx context.Context, req bus.FlushRequest) bus.FlushReply {
	ctx, cancel := context.WithTimeout(ctx, maxFlushWait)
	defer cancel()
	o.m.priority.enter()
	defer o.m.priority.leave()
	head, err := o.m.bus.Head(ctx, o.shard)
	if err != nil {
		return bus.FlushReply{Shard: o.shard, Err: "head of the bus: " + err.Error()}
	}
	w := &flushWait{req: req, head: head, reply: make(chan bus.FlushReply, 1)}
	select {
	case o.flushes <- w:
	case <-ctx.Done():
		return bus.FlushReply{Shard: o.shard, Err: "the owner of the views is busy"}
	}
	select {
	case r := <-w.reply:
		return r
	case <-ctx.Done():
		return bus.FlushReply{Shard: o.shard, Err: "the owner of the views has not committed in time"}
	}
}

// refuse answers requests that come after the loop has ended, until the bus stops to deliver them.
func (o *owner) refuse(gone <-chan struct{}) {
	<-gone
	for {
		select {
		case w := <-o.flushes:
			w.reply <- bus.FlushReply{Shard: o.shard, Err: "the owner of the shard stopped"}
		case <-time.After(maxFlushWait):
			return
		}
	}
}

// reached reports whether the batch or a commit has everything that the request must see.
func (o *owner) reached(w *flushWait) bool {
	return o.gen > w.head.Gen || o.gen == w.head.Gen && o.read >= w.head.Seq
}

// bounds returns the range of a request.
func bounds(req *bus.FlushRequest) (begin, end int64) {
	if req.Begin == 0 && req.End == 0 {
		return math.MinInt64, math.MaxInt64
	}
	return req.Begin, req.End
}

// firstBin returns the first time whose rows can meet a range that begins at begin: derived rows stand for a minute.
func firstBin(begin int64) int64 { return tables.RangeRule{Span: tables.LogStatsBin}.FirstEnd(begin) }

// pending reports whether the batch has rows that meet the request.
func (o *owner) pending(w *flushWait) bool {
	begin, end := bounds(&w.req)
	begin = firstBin(begin)
	for i := range o.batch.segments {
		s := &o.batch.segments[i]
		if s.view < 0 || s.minTime > end || s.maxTime < begin {
			continue
		}
		if !w.req.Process.IsZero() && w.req.Process != s.process {
			continue
		}
		if len(w.req.Views) == 0 || o.m.views[s.view].feeds(w.req.Views) {
			return true
		}
	}
	return false
}

// feeds reports whether the view is one of names, or a table derived from it is.
func (v *View) feeds(names []string) bool {
	return slices.Contains(names, v.Table.Name) ||
		slices.ContainsFunc(v.Derived, func(d Derived) bool { return slices.Contains(names, d.Table.Name) })
}

// answerReady answers the requests for which nothing is left to commit.
func (o *owner) answerReady() {
	o.waits = slices.DeleteFunc(o.waits, func(w *flushWait) bool {
		if !o.reached(w) || o.pending(w) {
			return false
		}
		begin, end := bounds(&w.req)
		begin = firstBin(begin)
		parked := o.parked.meeting(begin, end, w.req.Process)
		for i := range o.batch.waiting {
			r := &o.batch.waiting[i].record
			if r.BeginTime <= end && r.EndTime >= begin && (w.req.Process.IsZero() || w.req.Process == r.ProcessID) {
				parked++
			}
		}
		w.reply <- bus.FlushReply{Shard: o.shard, Gen: o.gen, Seq: o.read, CommitNo: o.commitNo, Parked: parked, Backlog: o.inBacklog(begin, end)}
		return true
	})
}

// answerAll ends all requests with an error.
func (o *owner) answerAll(reason string) {
	for _, w := range o.waits {
		w.reply <- bus.FlushReply{Shard: o.shard, Err: reason}
	}
	o.waits = nil
}
