// Package catalogtest is the suite that every implementation of catalog.Catalog must pass. It writes through the
// interface and reads through the interface; it knows nothing about the store.
package catalogtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Run runs the suite. open must return an empty catalog; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) catalog.Catalog) {
	for _, c := range []struct {
		name string
		test func(*testing.T, catalog.Catalog)
	}{
		{"SettingsAreSetOnce", testSettings},
		{"GenerationsOpenOnce", testGenerations},
		{"OneClockStampsAll", testClock},
		{"LeaseEpochsGrow", testLeaseEpochs},
		{"LeaseExpires", testLeaseExpires},
		{"LeaseHasOneHolder", testLeaseOneHolder},
		{"LeasesAreKeptTogether", testLeasesKept},
		{"LeasesAreForgotten", testLeasesForgotten},
		{"CheckpointStandsBeforeItsGeneration", testCheckpointStart},
		{"ArchiveMovesByCompareAndSwap", testArchiveCompareAndSwap},
		{"ZombieLosesAtTheCompare", testZombieLoses},
		{"ArchiveCommitIsWhole", testArchiveWhole},
		{"InvalidCommitsAreRefused", testInvalid},
		{"OldObjectsAreRefused", testOldObjects},
		{"FirstRegistrationWins", testFirstRegistrationWins},
		{"StubsAreFilled", testStubs},
		{"StubStreamMovesToItsProcess", testStubMoves},
		{"RegistrationRoundTrip", testRegistrationRoundTrip},
		{"LayoutsAreShared", testLayouts},
		{"StreamTags", testStreamTags},
		{"LastSeenTimes", testLastSeen},
		{"LastTicksHaveTheirTime", testLastTicks},
		{"DuplicatesByTruncatedTime", testDuplicatesTruncated},
		{"ManyBlocks", testManyBlocks},
		{"BlocksSinceReadsWholeCommits", testBlocksSince},
		{"AdoptedBodies", testAdopted},
		{"PacksAfter", testPacksAfter},
		{"SkipsInRange", testSkips},
		{"ViewMovesBehindArchive", testViewBehindArchive},
		{"ViewCommitIsWhole", testViewWhole},
		{"Parked", testParked},
		{"BacklogOpensWithItsMove", testBacklogOpens},
		{"BacklogIsBuiltInChunks", testBacklogChunks},
		{"BacklogClaims", testBacklogClaims},
		{"BacklogZombieLoses", testBacklogZombie},
		{"BacklogRace", testBacklogRace},
		{"EventRange", testEventRange},
		{"PartitionDeltas", testPartitionDeltas},
		{"SleepyReaderStartsOver", testSleepyReader},
		{"InstancesHaveTheirPartitions", testInstances},
		{"GuardedCommit", testGuard},
		{"StreamsOfProcesses", testProcessStreams},
		{"BlocksOfAStream", testStreamBlocks},
		{"BlocksOfATrace", testTraces},
		{"FrozenBlocksOfATrace", testTracesFrozen},
		{"GarbageCollection", testGarbage},
		{"FreezeMovesExactly", testFreezeMovesExactly},
		{"FreezeLimits", testFreezeLimits},
		{"FreezeStale", testFreezeStale},
		{"FrozenDuplicates", testFrozenDuplicates},
		{"FrozenAhead", testFrozenAhead},
		{"FreezeRace", testFreezeRace},
		{"ChangesSincePositions", testChanges},
		{"ChangesUpToALimit", testChangesLimit},
		{"ChangesOfTheNextGeneration", testChangesGeneration},
		{"ChangesByFrozenBlocks", testChangesFrozen},
		{"ChangesCoverEveryDifference", testChangesCover},
		{"ChangesCanBeFollowed", testChangesFollow},
		{"ProcessesAndStreamsByPages", testPages},
		{"Stats", testStats},
		{"ConflictFailsNobodyElse", testConflictAlone},
		{"ConcurrentCommitsAreSerialisable", testSerialisable},
		{"DeltasAddUp", testDeltasAddUp},
		{"CancelledCallDoesNothing", testCancelled},
		{"ClosedCatalogSaysSo", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			cat := open(t)
			c.test(t, cat)
			if err := cat.Close(); err != nil && !errors.Is(err, catalog.ErrClosed) {
				t.Errorf("close: %v", err)
			}
		})
	}
}

var eager = catalog.ShardID{Class: 'e'}

// second is a time that is easy to read in a failure.
func second(s int64) int64 { return 1_700_000_000_000_000_000 + s*1_000_000_000 }

// id makes ids that differ by kind and number.
func id(kind byte, n int) telemetry.ID {
	var i telemetry.ID
	i[0], i[14], i[15] = kind, byte(n>>8), byte(n)
	return i
}

func processID(n int) telemetry.ID { return id('p', n) }
func streamID(n int) telemetry.ID  { return id('s', n) }
func blockID(n int) telemetry.ID   { return id('b', n) }

func process(n int) catalog.ProcessReg {
	return catalog.ProcessReg{
		Process: telemetry.Process{
			ID: processID(n), Exe: fmt.Sprint("exe", n), Username: "u", Realname: "r", Computer: "c", Distro: "d", CPUBrand: "b",
			TSCFrequency: 1e9, StartTime: second(0), StartTicks: 7,
			Properties: []telemetry.Property{{Key: "n", Value: fmt.Sprint(n)}},
		},
		InsertTime: second(1),
	}
}

func stream(n, process int) catalog.StreamReg {
	return catalog.StreamReg{
		Stream: telemetry.Stream{
			ID: streamID(n), ProcessID: processID(process), Tags: []string{"log"}, Format: telemetry.FormatTransit,
			Properties: []telemetry.Property{{Key: "thread", Value: fmt.Sprint(n)}},
		},
		DependenciesCBOR: []byte("dependencies"), ObjectsCBOR: []byte("objects"),
		InsertTime: second(1),
	}
}

// block is block n of a stream, which began at second n.
func block(n, stream, process int) catalog.BlockReg {
	return catalog.BlockReg{
		Block: telemetry.Block{
			ID: blockID(n), StreamID: streamID(stream), ProcessID: processID(process),
			BeginTime: second(int64(n)), EndTime: second(int64(n) + 1), BeginTicks: int64(n) * 10, EndTicks: int64(n)*10 + 10,
			ObjectOffset: int64(n) * 100, NbObjects: 100,
		},
		InsertTime: second(int64(n) + 2), PackOffset: int64(n) * 1000, PackLength: 1000, PayloadSize: 900,
	}
}

func key(b catalog.BlockReg) catalog.BlockKey {
	return catalog.BlockKey{StreamID: b.StreamID, BeginTime: b.BeginTime, BlockID: b.ID}
}

// step is an archive commit with a pack over (from, to].
func step(from, to uint64, blocks ...catalog.BlockReg) *catalog.ArchiveCommit {
	return &catalog.ArchiveCommit{
		Shard: eager, From: from, To: to, Epoch: 1, Blocks: blocks,
		Pack: &catalog.Pack{Shard: eager, FirstSeq: from + 1, LastSeq: to, Key: fmt.Sprintf("packs/%d-%d", from+1, to), Size: 4000, Created: second(9)},
	}
}

func archive(t *testing.T, cat catalog.Catalog, commits ...*catalog.ArchiveCommit) {
	t.Helper()
	for _, c := range commits {
		if err := cat.CommitArchive(t.Context(), c); err != nil {
			t.Fatalf("archive %d to %d: %v", c.From, c.To, err)
		}
	}
}

func view(t *testing.T, cat catalog.Catalog, c *catalog.ViewCommit) int64 {
	t.Helper()
	no, err := cat.CommitView(t.Context(), c)
	if err != nil {
		t.Fatalf("view commit: %v", err)
	}
	return no
}

func partition(n int) catalog.Partition {
	return catalog.Partition{
		View: "log_entries", Level: 1, Bucket: int64(n), MinTime: second(int64(n)), MaxTime: second(int64(n) + 1),
		MinInsert: second(2), MaxInsert: second(3), Rows: int64(n + 1), Size: 100, SchemaVer: 4, Sort: 2,
		Procs: make([]byte, catalog.ProcessBitmapBytes), Key: fmt.Sprint("views/", n), SrcHash: []byte{1, byte(n)},
	}
}

func checkpoint(t *testing.T, cat catalog.Catalog, consumer string, s catalog.ShardID) catalog.Checkpoint {
	t.Helper()
	c, err := cat.Checkpoint(t.Context(), consumer, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
