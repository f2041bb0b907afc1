package perfetto

import "github.com/micromegas-go/micromegas/query/perfetto/tracepb"

// event is one packet that is filled again for each event, so that events cost no allocation: messages of proto2 point at
// the values of their fields, and these point at event's own.
type event struct {
	packet     tracepb.TracePacket
	track      tracepb.TrackEvent
	timestamp  uint64
	kind       tracepb.TrackEvent_Type
	name       uint64
	trackUUID  uint64
	location   uint64
	categories [1]uint64
	value      float64

	sequence uint32
	flags    uint32
	first    bool
}

func (e *event) init() {
	e.sequence = sequenceID
	e.first = true
	e.packet.Timestamp = &e.timestamp
	e.packet.TrackEvent = &e.track
	e.track.Type = &e.kind
	e.track.TrackUuid = &e.trackUUID
}

// frame sets the fields that every packet has.
func (e *event) frame(p *tracepb.TracePacket, first, forgotten bool) {
	e.flags = uint32(tracepb.TracePacket_SEQ_NEEDS_INCREMENTAL_STATE)
	if first || forgotten {
		e.flags |= uint32(tracepb.TracePacket_SEQ_INCREMENTAL_STATE_CLEARED)
	}
	p.TrustedPacketSequenceId = &e.sequence
	p.SequenceFlags = &e.flags
	p.FirstPacketOnSequence = nil
	if first {
		p.FirstPacketOnSequence = &e.first
	}
}

// fill sets the event's kind, time and track, and clears the rest.
func (e *event) fill(kind tracepb.TrackEvent_Type, track uint64, t int64) {
	e.kind, e.trackUUID, e.timestamp = kind, track, uint64(t)
	e.packet.InternedData = nil
	e.track.CategoryIids = nil
	e.track.NameIid = nil
	e.track.SourceLocationIid = nil
}

// scope sets the interned strings of an event.
func (e *event) scope(s scope) {
	e.name, e.location, e.categories[0] = s.name, s.location, s.category
	e.track.NameIid = &e.name
	e.track.SourceLocationIid = &e.location
	e.track.CategoryIids = e.categories[:]
}
