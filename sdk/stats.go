package sdk

import "sync/atomic"

// drop says why the recorder did not record an event, or not all of it.
type drop uint8

const (
	dropMemory      drop = iota // no memory within Config.Memory
	dropLane                    // GOMAXPROCS is above 1,024
	dropSite                    // a call site beyond 65,536
	dropSet                     // a set of properties beyond 65,536
	dropTrack                   // a track beyond 4,096
	dropTrackClosed             // a span on a closed track
	dropDepth                   // a span inside 4,096 others
	dropSize                    // a record beyond 8 MiB
	dropCut                     // a text that was cut or cleaned; the event is there
	dropInvalid                 // a record that makes no sense: a track was used by two goroutines at once
	dropImage                   // an image without room
	dropLate                    // an event recorded while the library stopped
	dropBroken                  // the recorder panicked, or the sink in its hands: nothing more is recorded
	numDrops
)

var dropNames = [numDrops]string{
	"memory", "lane", "too many sites", "too many property sets", "too many tracks", "track closed", "too deep", "too large", "text cut", "invalid", "image", "late", "recorder broken",
}

// dropCounts counts by reason.
type dropCounts [numDrops]atomic.Int64

var drops dropCounts

func (d *dropCounts) add(why drop, n int64) { d[why].Add(n) }
