package sqlite

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// A reader that is too far behind is told so, and never misses a change.
func TestOldChangesAreForgotten(t *testing.T) {
	db := openInternal(t)
	db.writer.keptChanges = 50 * catalog.ChangeWeight // nothing is written yet
	shard := catalog.ShardID{Class: 'e'}
	const commits = 400
	for seq := range uint64(commits) {
		err := db.CommitArchive(t.Context(), &catalog.ArchiveCommit{
			Shard: shard, From: seq, To: seq + 1, Epoch: 1,
			Processes: []catalog.ProcessReg{{Process: telemetry.Process{ID: telemetry.ID{byte(seq), byte(seq >> 8), 1}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for seq := range uint64(commits + 1) {
		c, err := db.ChangedProcesses(t.Context(), map[catalog.ShardID]uint64{shard: seq}, 0)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case c.Positions[shard] != commits:
			t.Fatalf("after %d: %+v", seq, c)
		case c.All && kept > 0:
			t.Fatalf("forgotten at %d, and not before", seq)
		case c.All && c.IDs != nil:
			t.Fatalf("after %d: %+v", seq, c)
		case !c.All && len(c.IDs) != int(commits-seq):
			t.Fatalf("after %d: %d changes", seq, len(c.IDs))
		case !c.All:
			kept++
		}
	}
	if kept < 47 || kept > 150 { // a commit here weighs one more than nothing
		t.Errorf("%d commits are kept", kept)
	}
}
