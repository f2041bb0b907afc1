package catalog

import "github.com/micromegas-go/micromegas/schemas/telemetry"

// ChangesKept is how far back a catalog must remember which rows of a shard's processes and streams changed: as many of the last archive
// commits as weigh this much together, where a commit weighs ChangeWeight and one for each row that it changed.
const (
	ChangesKept  = 1 << 20
	ChangeWeight = 16
)

// Changes says which rows of processes, or of streams, changed after some positions.
type Changes struct {
	// All says that any row may have changed: the reader must read all of them.
	All bool
	// IDs are those of the changed rows, each once, ordered by No; nil with All.
	IDs []telemetry.ID
	// Positions is up to where the answer is complete. A row that is read after it is as new as that, or newer: what changed it
	// since is in the answer to Positions.
	Positions map[ShardID]uint64
}
