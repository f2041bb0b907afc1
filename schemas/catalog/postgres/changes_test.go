package postgres

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var changingShard = catalog.ShardID{Class: 'e'}

func registerOneByOne(t *testing.T, db *DB, commits uint64) {
	t.Helper()
	for seq := range commits {
		err := db.CommitArchive(t.Context(), &catalog.ArchiveCommit{
			Shard: changingShard, From: seq, To: seq + 1, Epoch: 1,
			Processes: []catalog.ProcessReg{{Process: telemetry.Process{ID: telemetry.ID{byte(seq), byte(seq >> 8), 1}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func changedAfter(t *testing.T, db *DB, seq uint64) catalog.Changes {
	t.Helper()
	c, err := db.ChangedProcesses(t.Context(), map[catalog.ShardID]uint64{changingShard: seq}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A reader that is too far behind is told so, and never misses a change.
func TestOldChangesAreForgotten(t *testing.T) {
	db := open(t, database(t))
	db.keptChanges = 50 * catalog.ChangeWeight
	const commits = 2*forgetEvery + 100
	registerOneByOne(t, db, commits)
	kept := 0
	for seq := range uint64(commits + 1) {
		c := changedAfter(t, db, seq)
		switch {
		case c.Positions[changingShard] != commits:
			t.Fatalf("after %d: %+v", seq, c)
		case c.All && kept > 0:
			t.Fatalf("forgotten at %d, and not before", seq)
		case !c.All && len(c.IDs) != int(commits-seq):
			t.Fatalf("after %d: %d changes", seq, len(c.IDs))
		case !c.All:
			kept++
		}
	}
	if kept < 47 || kept > 47+forgetEvery { // a commit here weighs one more than nothing
		t.Errorf("%d commits are kept", kept)
	}
}

// Programs of an earlier version commit without a note.
func TestCommitWithoutANoteIsNoticed(t *testing.T) {
	url := database(t)
	db := open(t, url)
	registerOneByOne(t, db, 9)
	exec(t, raw(t, url), "DELETE FROM changes WHERE seq = 5")
	for seq := range uint64(10) {
		if c := changedAfter(t, db, seq); c.All != (seq < 5) {
			t.Errorf("after %d: %+v", seq, c)
		}
	}
	exec(t, raw(t, url), "DELETE FROM changes WHERE seq = 9")
	if c := changedAfter(t, db, 8); !c.All {
		t.Errorf("the last commit has no note: %+v", c)
	}
}
