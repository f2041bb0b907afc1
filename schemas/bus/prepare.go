package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// openPatience is how long Open waits for servers that have no leader at the moment: an election takes up to 9 s, and
	// a server that starts recovers its streams before.
	openPatience = 30 * time.Second
	// wantedReplicas is how many copies a stream gets where nobody says otherwise: what survives the loss of one server.
	wantedReplicas = 3
	// fewerReplicas is how many it gets meanwhile, when the cluster has not heard from enough of its servers: the loss of one
	// server stops the stream, and loses nothing.
	fewerReplicas = 2
	// peersPatience is how long the servers may take to be heard from: they are starting.
	peersPatience = 5 * time.Second
	// moreReplicasAfter is how often more copies are tried than there are.
	moreReplicasAfter = 30 * time.Second
	// preparing bounds the shards that are prepared at once.
	preparing = 8
	// recheckPause is the least distance between two checks of the streams.
	recheckPause = 2 * time.Second

	errCodeNoPeers       = 10005
	errCodeNotInCluster  = 10074 // more than one copy where there is no cluster
	peersUnheard         = "offline"
	peersUnheardAfterAll = "miscellaneous"
)

// clustered says whether the server is one of a cluster, whose leaders change and whose answers may be late.
func (b *Bus) clustered() bool {
	if !b.inCluster.Load() && b.nc.ConnectedClusterName() != "" {
		b.inCluster.Store(true) // and stays so while the connection is cut
	}
	return b.inCluster.Load()
}

// prepareWithin prepares with patience for what may pass.
func (b *Bus) prepareWithin(ctx context.Context) error {
	end := time.Now().Add(openPatience)
	pause := retryMin
	for {
		err := b.prepare(ctx)
		if err == nil || !b.clustered() || !transient(err) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		b.log.Debug("bus not open yet", "error", err)
		pause = b.pause(ctx, pause)
	}
}

// prepare brings every stream into being.
func (b *Bus) prepare(ctx context.Context) error {
	if err := b.checkShardCount(ctx); err != nil {
		return err
	}
	if err := b.checkBinding(ctx); err != nil {
		return err
	}
	if err := b.chooseReplicas(ctx); err != nil {
		return err
	}
	// The last shard comes first and alone: from its first generation on, the store tells how many shards there are.
	last := Shard{Class: classes[0], Shard: int32(b.cfg.ShardsPerClass - 1)}
	if err := b.ensureShard(ctx, b.byShard[last]); err != nil {
		return err
	}
	if err := b.checkShardCount(ctx); err != nil {
		return err
	}
	var (
		wg     sync.WaitGroup
		errs   = make([]error, len(b.shards))
		places = make(chan struct{}, preparing)
	)
	for i, s := range b.shards {
		if s.Shard == last {
			continue
		}
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			errs[i] = b.ensureShard(ctx, s)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b *Bus) ensureShard(ctx context.Context, s *shard) error {
	if err := b.ensure(ctx, s); err != nil {
		return fmt.Errorf("shard %s: %w", s.Shard, err)
	}
	return nil
}

// checkShardCount refuses to run with another number of shards than the store knows: nobody would read some shards' frames,
// or two processes would look for one client's records in different ones.
func (b *Bus) checkShardCount(ctx context.Context) error {
	known, err := b.store.Generations(ctx)
	if err != nil {
		return fmt.Errorf("read generations: %w", err)
	}
	count := 0
	for _, g := range known {
		count = max(count, int(g.Shard.Shard)+1)
	}
	if count != 0 && count != b.cfg.ShardsPerClass {
		return fmt.Errorf("%w: %d are configured, and there are %d", ErrShardCount, b.cfg.ShardsPerClass, count)
	}
	return nil
}

// checkBinding refuses a bus of another catalog before anything is made on it. Every bus has the first shard.
func (b *Bus) checkBinding(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stream, err := b.js.Stream(ctx, Shard{Class: classes[0]}.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("first stream: %w", err)
	}
	_, err = b.boundTo(stream.CachedInfo().Config)
	return err
}

// chooseReplicas decides how many copies a stream gets that is made, and makes the stream of dead letters with them.
// Nothing that an ordinary client may ask for says how many servers with JetStream there are; so the stream of dead
// letters, which comes first, is tried with the wanted copies, and the cluster says whether it can keep them.
func (b *Bus) chooseReplicas(ctx context.Context) error {
	want := b.cfg.Replicas
	switch {
	case want == 0 && b.clustered():
		want = wantedReplicas
	case want == 0:
		want = 1
	}
	end := time.Now().Add(peersPatience)
	for {
		got, err := b.ensureDeadLetters(ctx, want)
		refused, isRefused := errors.AsType[*jetstream.APIError](err)
		switch {
		case err == nil:
			b.replicas.Store(int32(got))
			b.tooFew.Store(want == fewerReplicas && b.cfg.Replicas == 0)
			return nil
		case b.cfg.Replicas != 0 || want == 1 || !isRefused || refused.ErrorCode != errCodeNoPeers && refused.ErrorCode != errCodeNotInCluster:
			return err
		case !strings.Contains(refused.Description, peersUnheard) && !strings.Contains(refused.Description, peersUnheardAfterAll):
			b.log.Info("the cluster is too small for three copies of a stream", "cause", refused.Description)
			want = 1
			continue
		case b.replicas.Load() > 0 || time.Now().After(end):
			if want == fewerReplicas {
				return fmt.Errorf("the cluster does not hear from enough of its servers: %w", err)
			}
			b.log.Warn("streams that are made get two copies: a server of the cluster was never heard from", "cause", refused.Description)
			want = fewerReplicas
			continue
		}
		b.pause(ctx, retryMax)
		if ctx.Err() != nil || b.ctx.Err() != nil {
			return err
		}
	}
}

// copies is how many copies a stream shall have that has some.
func (b *Bus) copies(has, chosen int) int {
	if b.cfg.Replicas == 0 {
		return max(has, chosen)
	}
	return b.cfg.Replicas
}

// recheckSoon has the streams checked.
func (b *Bus) recheckSoon() {
	select {
	case b.recheck <- struct{}{}:
	default: // one is due anyway
	}
}

// recheckStreams checks all streams each time it is asked to, with patience: the servers may still be starting.
func (b *Bus) recheckStreams() {
	for {
		var more <-chan time.Time
		if b.tooFew.Load() {
			more = time.After(moreReplicasAfter)
		}
		select {
		case <-b.ctx.Done():
			return
		case <-b.recheck:
		case <-more:
		}
		begun := time.Now()
		pause := retryMin
		for b.ctx.Err() == nil {
			err := b.prepare(b.ctx)
			if err == nil {
				break
			}
			level := slog.LevelDebug
			if pause == retryMin { // once an outage
				level = slog.LevelWarn
			}
			b.log.Log(b.ctx, level, "streams not checked after an outage", "error", err)
			pause = b.pause(b.ctx, pause)
		}
		if rest := recheckPause - time.Since(begun); rest > 0 && b.clustered() {
			b.pause(b.ctx, rest)
		}
	}
}
