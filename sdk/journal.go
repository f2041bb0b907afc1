package sdk

import "github.com/micromegas-go/micromegas/schemas/telemetry"

// Journal keeps what blocks under construction hold, so that a killed process's events are sent by the next one. The recorder uses a sink's
// when it has one: package spool's does.
//
// Its methods may be called from any goroutine, but for one stream by one at a time. They take microseconds, unless a disk is stuck.
type Journal interface {
	// Append adds what has come to the open block of a stream since the last call. The first call with a new Head.ID begins the
	// block. What cannot be written is not an error of the caller: the block is then recovered as far as it was written.
	Append(g *Growth)
	// Cut says that the open block of a stream was handed to the sink, or given up. It must be called after Send, so that the
	// journal knows that the block is on its way and keeps it until the sink is done with it.
	Cut(streamID telemetry.ID)
}

// Growth is what has come to the open block of a stream. Nothing of it is kept after Append returns, but for the registrations, which must
// not be changed any more.
type Growth struct {
	Head telemetry.Block // the block as it would be if it ended now
	// Process and Stream are the bodies of insert_process and insert_stream. They are needed with the first growth of a stream, and
	// ignored later.
	Process, Stream []byte
	// Dependencies and Objects are the uncompressed bytes to be appended to those before.
	Dependencies, Objects []byte
}

// journaled is how much of the open block is in the journal.
type journaled struct{ deps, objs int }

// keep appends what came to the open block to a journal.
func (b *builder) keep(j Journal, process []byte) {
	if len(b.deps) == b.kept.deps && len(b.objs) == b.kept.objs {
		return
	}
	j.Append(&Growth{Head: b.head(), Process: process, Stream: b.registration, Dependencies: b.deps[b.kept.deps:], Objects: b.objs[b.kept.objs:]})
	b.kept = journaled{len(b.deps), len(b.objs)}
}
