package deploy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

const (
	// collectInterval is how often unreferenced objects are looked for; they only cost space.
	collectInterval = 10 * time.Minute
	// collectRole is what collectors are members of; the role has one lease, since two would only do the same twice.
	collectRole = "collect"
	// retiredSlack is added to the longest query before a retired partition's object goes, for queries that end late.
	retiredSlack = 5 * time.Minute
)

// shareCollecting collects garbage whenever that falls to this process.
func (s *Stack) shareCollecting(ctx context.Context) error {
	s.keeper.Share(ctx, collectRole, []string{collectRole}, func(ctx context.Context, _ catalog.Lease) error {
		s.collect(ctx)
		return nil
	})
	return nil
}

// collect removes what no catalog row names any more and no query reads, now and then until ctx ends.
func (s *Stack) collect(ctx context.Context) {
	tick := time.NewTicker(collectInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		opts, err := s.gcOptions(ctx)
		var result lake.GCResult
		if err == nil {
			result, err = s.lake.GC(ctx, s.catalog, opts)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("garbage collection stopped early", "error", err)
			continue
		}
		s.log.Debug("garbage collected", "result", fmt.Sprintf("%+v", result))
	}
}

// gcOptions tells the collector what is still in use.
func (s *Stack) gcOptions(ctx context.Context) (lake.GCOptions, error) {
	longest, err := longestQueryTimeout(ctx, s.catalog)
	if err != nil {
		return lake.GCOptions{}, err
	}
	lagging := s.archiveLags(ctx)
	opts := lake.GCOptions{
		RetiredAge: max(longest, s.cfg.QueryTimeout) + retiredSlack,
		ClaimOnBus: func(lake.Object) bool { return lagging },
	}
	if s.query != nil {
		opts.OldestRead = s.query.OldestCommit
	}
	return opts, nil
}

// archiveLags says whether a record on the bus may not be archived yet. The collector asks before it lists: an
// unreferenced oversize body of more than an hour then belongs to a publication that failed.
func (s *Stack) archiveLags(ctx context.Context) bool {
	done, err := s.catalog.ArchivePositions(ctx)
	if err != nil {
		return true
	}
	heads, err := s.heads(ctx)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(heads, func(h bus.Position) bool {
		return done[catalog.ShardID{Class: byte(h.Class), Gen: h.Gen, Shard: h.Shard.Shard}] < h.Seq
	})
}

// The collector must know the longest query of any process. Each process that answers queries leaves its timeout in the
// catalog, rounded up to a power of two of seconds, as a setting that stays: a timeout that was ever in use may be again.

func queryTimeoutSetting(seconds int64) string {
	return "query_timeout_seconds_" + strconv.FormatInt(seconds, 10)
}

// settings is the part of the catalog that remembers decisions about the lake.
type settings interface {
	Setting(ctx context.Context, key string) (value string, found bool, err error)
	PutSettingIfAbsent(ctx context.Context, key, value string) (stands string, err error)
}

// recordQueryTimeout tells collectors how long this process's queries may run.
func recordQueryTimeout(ctx context.Context, s settings, timeout time.Duration) error {
	step := int64(1)
	for time.Duration(step)*time.Second < timeout {
		step *= 2
	}
	if _, err := s.PutSettingIfAbsent(ctx, queryTimeoutSetting(step), "used"); err != nil {
		return fmt.Errorf("record the longest query: %w", err)
	}
	return nil
}

// longestQueryTimeout returns a time that no query of any process runs longer than.
func longestQueryTimeout(ctx context.Context, s settings) (time.Duration, error) {
	longest := time.Duration(0)
	for step := int64(1); time.Duration(step)*time.Second < 2*maxQueryTimeout; step *= 2 {
		_, found, err := s.Setting(ctx, queryTimeoutSetting(step))
		if err != nil {
			return 0, fmt.Errorf("read the longest query: %w", err)
		}
		if found {
			longest = time.Duration(step) * time.Second
		}
	}
	return longest, nil
}
