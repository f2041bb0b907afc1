package justintime_test

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// TestClockIsOfTheBlockThatEndsLast: the frequency of a process that does not know it comes from the ticks and the time of one block, that
// with the most ticks. A block before it whose wall clock was ahead, as before a time server set it, changes nothing.
func TestClockIsOfTheBlockThatEndsLast(t *testing.T) {
	last := &block{from: 10, to: 20, events: pair('A', 11, 12)}
	ahead := &block{from: 5, to: 9, offset: 10, claim: func(b *telemetry.Block) { b.EndTime = day + ticks(1000) }}
	for name, blocks := range map[string][]*block{"after it": {last, ahead}, "before it": {ahead, last}} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.process = telemetry.Process{ID: telemetry.NewID(), Exe: "game", StartTime: day} // its frequency is not known
			e.stream.ID, e.stream.ProcessID = telemetry.NewID(), e.process.ID
			e.register()
			s := e.service("one", config())
			e.post(blocks[0])
			e.ask(s, 0, 100)
			e.post(blocks[1])
			e.wantRows("clock of the last block", e.rows(e.ask(s, 0, 100)), []string{"-1 0 0 10.000 20.000 main-7", "0 -1 1 11.000 12.000 A"})
		})
	}
}
