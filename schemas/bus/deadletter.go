package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const (
	deadLetterStream  = "dead-letters"
	deadLetterSubject = "deadletters"
	// deadLetterWindow is how long the same dead letter again counts as one.
	deadLetterWindow = 2 * time.Minute
	// maxReason cuts a reason's text: it may quote foreign bytes.
	maxReason = 1000
	// maxReasons bounds the reasons that are counted apart; further ones are counted as OtherReasons.
	maxReasons = 64
)

// OtherReasons is where DeadLetterCounts has what exceeds its bound.
const OtherReasons = "other"

// DeadLetter says that a record cannot be used, and why. The record itself stays where its Copy says.
type DeadLetter struct {
	Copy
	BlockID, StreamID, ProcessID telemetry.ID
	View                         string // the view or consumer that could not use it
	Reason                       string // what kind of reason, and after the first ": " the details
	Time                         int64  // nanoseconds; 0 = now
}

// deadLetterMessage is a DeadLetter in its stream.
type deadLetterMessage struct {
	Class     string `json:"class"`
	Shard     int32  `json:"shard"`
	Gen       int32  `json:"gen"`
	Seq       uint64 `json:"seq"`
	Rec       int32  `json:"rec"`
	BlockID   []byte `json:"block_id"`
	StreamID  []byte `json:"stream_id"`
	ProcessID []byte `json:"process_id"`
	View      string `json:"view"`
	Reason    string `json:"reason"`
	Time      int64  `json:"time"`
}

func (d *DeadLetter) message() deadLetterMessage {
	return deadLetterMessage{
		Class: d.Class.String(), Shard: d.Shard.Shard, Gen: d.Gen, Seq: d.Seq, Rec: d.Rec,
		BlockID: d.BlockID[:], StreamID: d.StreamID[:], ProcessID: d.ProcessID[:],
		View: d.View, Reason: d.Reason, Time: d.Time,
	}
}

func (m *deadLetterMessage) letter() DeadLetter {
	class := Eager
	if m.Class == Raw.String() {
		class = Raw
	}
	d := DeadLetter{View: m.View, Reason: m.Reason, Time: m.Time}
	d.Copy = Copy{Position: Position{Shard: Shard{Class: class, Shard: m.Shard}, Gen: m.Gen, Seq: m.Seq}, Rec: m.Rec}
	copy(d.BlockID[:], m.BlockID)
	copy(d.StreamID[:], m.StreamID)
	copy(d.ProcessID[:], m.ProcessID)
	return d
}

// deadLetters counts what this process published.
type deadLetters struct {
	mu     sync.Mutex
	counts map[string]int64
}

func (l *deadLetters) count(reason string) {
	kind, _, _ := strings.Cut(reason, ": ")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[string]int64{}
	}
	if _, known := l.counts[kind]; !known && len(l.counts) >= maxReasons {
		kind = OtherReasons
	}
	l.counts[kind]++
}

// deadLetterConfig is how the stream of dead letters must be: bounded, the oldest go first.
func (b *Bus) deadLetterConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:       deadLetterStream,
		Subjects:   []string{deadLetterSubject},
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardOld,
		MaxBytes:   b.cfg.DeadLetterBytes,
		MaxMsgs:    b.cfg.DeadLetterMsgs,
		Replicas:   replicas,
		Duplicates: deadLetterWindow,
	}
}

// ensureDeadLetters makes the stream, or brings it up to date, with so many copies, and returns how many it has.
func (b *Bus) ensureDeadLetters(ctx context.Context, replicas int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	want := b.deadLetterConfig(replicas)
	stream, err := b.js.Stream(ctx, deadLetterStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.js.CreateStream(ctx, want)
	}
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", deadLetterStream, err)
	}
	got := stream.CachedInfo().Config
	if want.Replicas = b.copies(got.Replicas, replicas); got.Replicas == want.Replicas && got.MaxBytes == want.MaxBytes && got.MaxMsgs == want.MaxMsgs {
		return got.Replicas, nil
	}
	if _, err := b.js.UpdateStream(ctx, want); err != nil {
		return 0, fmt.Errorf("update stream %s: %w", deadLetterStream, err)
	}
	return want.Replicas, nil
}

// DeadLetter returns nil when d is durable. The same record for the same view again, within two minutes, is stored once.
func (b *Bus) DeadLetter(ctx context.Context, d DeadLetter) error {
	if d.Time == 0 {
		d.Time = time.Now().UnixNano()
	}
	d.Reason = strings.ToValidUTF8(d.Reason[:min(len(d.Reason), maxReason)], "\uFFFD")
	data, err := json.Marshal(d.message())
	if err != nil {
		return fmt.Errorf("dead letter %s/%d: %w", d.Position, d.Rec, err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	msg := &nats.Msg{Subject: deadLetterSubject, Data: data, Header: nats.Header{
		jetstream.MsgIDHeader:          {fmt.Sprintf("%s/%d/%s", d.Position, d.Rec, d.View)},
		jetstream.ExpectedStreamHeader: {deadLetterStream},
	}}
	ack, err := b.js.PublishMsg(ctx, msg)
	if err != nil {
		return fmt.Errorf("dead letter %s/%d: %w: %w", d.Position, d.Rec, ErrUnavailable, err)
	}
	if !ack.Duplicate {
		b.dead.count(d.Reason)
	}
	return nil
}

// DeadLetterCounts returns how many dead letters this process published, by kind of reason: the text before ": ".
func (b *Bus) DeadLetterCounts() map[string]int64 {
	b.dead.mu.Lock()
	defer b.dead.mu.Unlock()
	return maps.Clone(b.dead.counts)
}

// ReadDeadLetters returns the newest dead letters, at most limit, oldest first.
func (b *Bus) ReadDeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	stream, err := b.js.Stream(ctx, deadLetterStream)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 || limit <= 0 {
		return nil, nil
	}
	first := state.FirstSeq
	if n := uint64(limit); state.LastSeq-first >= n {
		first = state.LastSeq - n + 1
	}
	var letters []DeadLetter
	for seq := first; seq <= state.LastSeq; seq++ {
		raw, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // dropped meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read dead letter %d: %w", seq, err)
		}
		var m deadLetterMessage
		if err := json.Unmarshal(raw.Data, &m); err != nil {
			b.log.Warn("dead letter not understood", "seq", seq, "error", err)
			continue
		}
		letters = append(letters, m.letter())
	}
	return letters, nil
}
