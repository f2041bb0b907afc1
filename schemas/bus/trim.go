package bus

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// trimStep bounds one purge, which holds the stream's lock: 8 MB take ~3 ms, 512 MB take 215 ms. With three copies on one
	// machine 8 MB take ~30 ms, which publishers wait.
	trimStep = 8 << 20
	// trimInterval is the least distance between two looks at a stream whose archive moves on in small steps.
	trimInterval = time.Second
	// markBytes is how finely the sizes of frames are remembered.
	markBytes = 1 << 20
	// messageOverhead is what a message takes in a stream's file beside its payload.
	messageOverhead = 160
)

// trimmer knows how large the frames of a stream are, as far as this process read them: the archive's owner trims, and
// it has read what it trims. What was read by an owner before is judged by its average.
type trimmer struct {
	mu    sync.Mutex
	marks []mark // ascending, without gaps between them
	last  uint64 // sequence of the last frame noted
	seen  time.Time

	trimming sync.Mutex // held while purging: one at a time
}

// mark is the size of the frames first..last together.
type mark struct {
	first, last uint64
	bytes       int64
}

// note remembers the size of frame seq.
func (t *trimmer) note(seq uint64, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq <= t.last && len(t.marks) > 0 {
		return
	}
	if seq != t.last+1 {
		t.marks = t.marks[:0] // a reader began elsewhere
	}
	t.last = seq
	bytes := int64(size + messageOverhead)
	if n := len(t.marks); n > 0 && t.marks[n-1].bytes < markBytes {
		t.marks[n-1].last = seq
		t.marks[n-1].bytes += bytes
		return
	}
	t.marks = append(t.marks, mark{seq, seq, bytes})
}

// due says whether it is time to look at the stream, and notes that it is done.
func (t *trimmer) due(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.seen) < trimInterval {
		return false
	}
	t.seen = now
	return true
}

// steps returns the first sequences that the stream shall begin with, one purge after another, so that of the frames up
// to archived about keep bytes stay. The stream's last frame stays in any case: a stream that becomes empty is moved to a new folder
// by the server, which fsyncs neither that folder nor the one above, so that a power loss could take frames that are acknowledged afterwards, and with
// them the memory of how far the sequence had come.
func (t *trimmer) steps(st streamState, archived uint64, keep int64) []uint64 {
	if st.LastSeq <= st.FirstSeq {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.marks) > 0 && t.marks[0].last < st.FirstSeq {
		t.marks = t.marks[1:] // gone
	}
	pieces := t.pieces(st, min(archived, st.LastSeq-1))
	var total int64
	for _, p := range pieces {
		total += p.bytes
	}
	var steps []uint64
	var step int64
	var last uint64
	for _, p := range pieces {
		if total-p.bytes < keep {
			break
		}
		if step > 0 && step+p.bytes > trimStep {
			steps = append(steps, last+1)
			step = 0
		}
		total -= p.bytes
		step += p.bytes
		last = p.last
	}
	if step >= trimStep/2 || (step > 0 && keep == 0) { // a small rest waits for more
		steps = append(steps, last+1)
	}
	return steps
}

// pieces returns the sizes of the archived frames in the stream, in order, each at most about trimStep.
func (t *trimmer) pieces(st streamState, archived uint64) []mark {
	known, unread, tail := st.LastSeq+1, st.Bytes, int64(0)
	if len(t.marks) > 0 {
		known = t.marks[0].first
		tail = max(int64(st.LastSeq)-int64(t.last), 0)
		for _, m := range t.marks {
			unread -= m.bytes
		}
	}
	var pieces []mark
	if known > st.FirstSeq { // frames that this process has not read: by their average
		average := max(unread/(int64(known-st.FirstSeq)+tail), 1)
		for first := st.FirstSeq; first < known && first <= archived; {
			n := uint64(max(markBytes/average, 1))
			last := min(first+n-1, known-1, archived)
			pieces = append(pieces, mark{first, last, int64(last-first+1) * average})
			first = last + 1
		}
	}
	for _, m := range t.marks {
		if m.first > archived {
			break
		}
		if m.last > archived { // a part of it, by its average
			m.bytes = m.bytes * int64(archived-m.first+1) / int64(m.last-m.first+1)
			m.last = archived
		}
		pieces = append(pieces, m)
	}
	return pieces
}

// Trim tells the bus that everything up to archived is in packs: what Config.KeepArchivedBytes does not keep for late
// readers is purged, in steps that do not hold up the publishers. Only the archive's owner may call it. It looks at the
// stream at most once a second, so it may be called after every commit.
func (b *Bus) Trim(ctx context.Context, archived Position) error {
	s, err := b.lookup(archived.Shard)
	if err != nil {
		return err
	}
	if s.current().Gen != archived.Gen || !s.trimmer.due(time.Now()) {
		return nil
	}
	return b.trim(ctx, s, archived)
}

func (b *Bus) trim(ctx context.Context, s *shard, archived Position) error {
	s.trimmer.trimming.Lock()
	defer s.trimmer.trimming.Unlock()
	st, err := b.streamState(ctx, s)
	if err != nil {
		return fmt.Errorf("trim shard %s: %w", s.Shard, err)
	}
	if st.Created != s.current().Created || archived.Seq < st.FirstSeq {
		return nil
	}
	for _, first := range s.trimmer.steps(st, archived.Seq, b.cfg.KeepArchivedBytes/int64(len(b.shards))) {
		if err := b.purge(ctx, s, first); err != nil {
			return fmt.Errorf("trim shard %s: %w", s.Shard, err)
		}
	}
	return nil
}
