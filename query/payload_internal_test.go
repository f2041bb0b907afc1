package query

import (
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func TestPlacesOfBlocksAreForgotten(t *testing.T) {
	p := &payloads{streams: map[telemetry.ID]*blockPlaces{}}
	at := time.Now()
	keep := func(stream byte, blocks int) {
		at = at.Add(time.Second)
		places := &blockPlaces{read: at, rows: make(map[telemetry.ID]blockPlace, blocks)}
		for i := range blocks {
			places.rows[telemetry.ID{byte(i), byte(i >> 8), byte(i >> 16)}] = blockPlace{}
		}
		p.keep(telemetry.ID{stream}, places)
	}
	f := func(streams, places int, kept ...byte) {
		t.Helper()
		if len(p.streams) != streams || p.places != places {
			t.Errorf("%d places of %d streams, want %d of %d", p.places, len(p.streams), places, streams)
		}
		for _, stream := range kept {
			if p.streams[telemetry.ID{stream}] == nil {
				t.Errorf("stream %d is forgotten", stream)
			}
		}
	}
	const half = payloadPlaces / 2
	keep(1, half)
	keep(2, half-1)
	f(2, 2*half-1, 1, 2)
	keep(1, half) // read anew: it is the last one now
	keep(3, 2)
	f(2, half+2, 1, 3)
	keep(4, payloadPlaces+1)
	f(1, payloadPlaces+1, 4)
	keep(5, 1)
	f(1, 1, 5)
}
