package bus

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// headInterval is the least distance between two questions for a shard's head: many queries ask, and each is served by
// any question that was put after it asked.
const headInterval = 5 * time.Millisecond

// heads shares the questions for one shard's last sequence.
type heads struct {
	mu   sync.Mutex
	next *headCall     // gathers callers for a question that has not been put yet
	wake chan struct{} // holds one token while next is set
}

// headCall is one question and its answer, which stands once done is closed.
type headCall struct {
	done     chan struct{}
	position Position
	err      error
}

func (h *heads) init() { h.wake = make(chan struct{}, 1) }

// Head returns the shard's last position, by a question to the servers that was put after the call came: every frame that
// was acknowledged before the call, to whomever, is at or before it, also while leaders change and links are cut (see
// certain). Where that cannot be told now the error is ErrUnavailable. A stream that holds nothing yet answers with the
// sequence before its first.
func (b *Bus) Head(ctx context.Context, name Shard) (Position, error) {
	s, err := b.lookup(name)
	if err != nil {
		return Position{}, err
	}
	call := s.heads.join()
	select {
	case <-call.done:
		return call.position, call.err
	case <-ctx.Done():
		return Position{}, ctx.Err()
	case <-b.ctx.Done():
		return Position{}, ErrClosed
	}
}

// join returns the question that will be put next.
func (h *heads) join() *headCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		h.next = &headCall{done: make(chan struct{})}
		h.wake <- struct{}{} // never waits: the last token went before next was taken
	}
	return h.next
}

// take returns the question to put now; callers after this wait for the one after it.
func (h *heads) take() *headCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	call := h.next
	h.next = nil
	return call
}

// askHeads puts questions when somebody waits, headInterval apart, until the Bus is closed.
func (b *Bus) askHeads(s *shard) {
	for {
		select {
		case <-s.heads.wake:
		case <-b.ctx.Done():
			return
		}
		call := s.heads.take()
		started := time.Now()
		call.position, call.err = b.askHead(s)
		close(call.done)
		if rest := headInterval - time.Since(started); rest > 0 {
			b.pause(b.ctx, rest)
		}
	}
}

func (b *Bus) askHead(s *shard) (Position, error) {
	ctx, cancel := context.WithTimeout(b.ctx, apiTimeout)
	defer cancel()
	generation := s.current()
	st, err := b.certain(ctx, s)
	if err != nil {
		return Position{}, fmt.Errorf("head of shard %s: %w: %w", s.Shard, ErrUnavailable, err)
	}
	if st.Created != generation.Created {
		b.recheckSoon()
		return Position{}, fmt.Errorf("head of shard %s: %w: its stream was replaced", s.Shard, ErrUnavailable)
	}
	return Position{Shard: s.Shard, Gen: generation.Gen, Seq: max(st.LastSeq, generation.FirstSeq-1)}, nil
}
