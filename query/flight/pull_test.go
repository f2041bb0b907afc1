package flight_test

import (
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
)

// pull is iter.Pull2 for batches.
func pull(batches func(func(arrow.RecordBatch, error) bool)) (func() (arrow.RecordBatch, error, bool), func()) { //nolint:revive // the order of iter.Pull2
	return iter.Pull2(iter.Seq2[arrow.RecordBatch, error](batches))
}
