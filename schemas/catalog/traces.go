package catalog

import "fmt"

// The index of traces tells which blocks hold a trace id. Archive writes a block's ids with its row; old ones are dropped, so the index
// is complete only since some time (see [Catalog.TraceSince]).

// Bounds of the index: beyond them the rows that were archived first go.
const (
	MaxTraceIDs         = 4 << 20  // ids, each once a block
	MaxTraceFilterBytes = 64 << 20 // of filters: 64 Ki of the smallest
)

// Bounds of what a block brings. They are those of wire.TraceSet.
const (
	TraceIDBytes   = 16
	MaxBlockTraces = 256
	MaxTraceFilter = 64 << 10
)

// TraceFilterUnit is what a filter is counted in: bytes of the smallest one.
const TraceFilterUnit = 1 << 10

// CheckTraces reports a set of trace ids that the index does not take.
func CheckTraces(ids, filter []byte) error {
	switch {
	case len(ids) > 0 && len(filter) > 0:
		return fmt.Errorf("%w: trace ids and a filter", ErrInvalid)
	case len(ids)%TraceIDBytes != 0 || len(ids) > MaxBlockTraces*TraceIDBytes:
		return fmt.Errorf("%w: trace ids of %d bytes", ErrInvalid, len(ids))
	case len(filter) > MaxTraceFilter:
		return fmt.Errorf("%w: filter of trace ids of %d bytes", ErrInvalid, len(filter))
	}
	return nil
}

// TraceFilterUnits is what a filter counts.
func TraceFilterUnits(filter []byte) int64 {
	return (int64(len(filter)) + TraceFilterUnit - 1) / TraceFilterUnit
}
