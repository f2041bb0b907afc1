package materializers

import (
	"time"
)

const (
	// BucketLength is the time that one file covers. It is also the bin that files are ordered by (newest first), so inside a file
	// of one bucket the rows are ordered by series and time alone.
	BucketLength = 15 * time.Minute

	// OverflowBucket is the bucket of rows whose time is absurd: before 2000, or more than a day after their block was taken. It has
	// no bounds, so that one bad clock widens the range of this file only.
	OverflowBucket int64 = -1

	// firstTime is 2000-01-01: nothing that runs today emitted before.
	firstTime int64 = 946684800e9
	// maxAhead is how far a clock may be ahead of the gateway's.
	maxAhead = int64(24 * time.Hour)
)

// bucketOf returns the start of the bucket of a row.
func bucketOf(t, insertTime int64) int64 {
	if t < firstTime || t > insertTime+maxAhead {
		return OverflowBucket
	}
	return t - t%int64(BucketLength)
}
