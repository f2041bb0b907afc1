// Package telemetry holds the nouns of the house: process, stream, block, log entry, measure, property, and the clock that
// turns a producer's ticks into time. It has no bytes of its own: every stage speaks in these types, the other schemas packages
// write and read them.
//
// Times are int64 nanoseconds UTC since the Unix epoch. Ticks are the producer's own counter: the ticks of a block are relative
// to its process's StartTicks, the ticks of an event are absolute.
package telemetry

// FormatTransit is the format of streams whose blocks hold the native binary events (schemas/wire).
const FormatTransit = "micromegas-transit"

// Process is one run of an instrumented program.
type Process struct {
	ID           ID
	Exe          string
	Username     string
	Realname     string
	Computer     string
	Distro       string
	CPUBrand     string
	TSCFrequency int64 // ticks per second, 0 = unknown: estimated from blocks (see NewClock)
	StartTime    int64
	StartTicks   int64
	ParentID     ID // zero = none
	Properties   []Property
}

// Member is one field of a Type.
type Member struct {
	Name        string
	TypeName    string
	Offset      uint32
	Size        uint32
	IsReference bool // holds the id of a dependency; TypeName means nothing then
}

// Type is the binary layout of one kind of event or dependency, as its producer declared it.
type Type struct {
	Name        string
	Size        uint32 // of one instance; 0 = each instance brings its own size
	Members     []Member
	IsReference bool // an instance stands for the dependency that its member "id" names
}

// Stream is an append-only sequence of events of one family. The position of a Type in its table is the type index that
// blocks use.
type Stream struct {
	ID           ID
	ProcessID    ID
	Dependencies []Type
	Objects      []Type
	Tags         []string
	Properties   []Property
	Format       string
}

// Block is the envelope of a batch of events of one stream, without its payload.
type Block struct {
	ID           ID
	StreamID     ID
	ProcessID    ID
	BeginTime    int64
	EndTime      int64
	BeginTicks   int64 // relative to the process's StartTicks; negative for a stream made before the process was stamped
	EndTicks     int64 // relative
	ObjectOffset int64 // events of the stream before this block
	NbObjects    int32 // as claimed by the producer
}

// LogEntry is one row of a log stream. Target and Properties may be kept; Msg may alias a decoder's buffer and is valid only
// during the callback that delivers it: keep strings.Clone of it.
type LogEntry struct {
	Ticks      int64 // absolute
	Level      int32 // 1 fatal, 2 error, 3 warn, 4 info, 5 debug, 6 trace
	Target     string
	Msg        string
	Properties *PropertySet // never nil
}

// Measure is one row of a metrics stream. Its strings and properties may be kept.
type Measure struct {
	Ticks      int64 // absolute
	Value      float64
	Target     string
	Name       string
	Unit       string
	Properties *PropertySet // never nil
}

// Span is one span of a thread. ID is the number of its begin event in its stream (of its end event if the begin is missing), -1 for the
// thread's root; Parent is the ID of the enclosing span. The JSON form travels between stages.
type Span struct {
	ID       int64  `json:"id"`
	Parent   int64  `json:"parent"`
	Depth    uint32 `json:"depth"`
	Hash     uint32 `json:"hash"` // of the scope
	Begin    int64  `json:"begin"`
	End      int64  `json:"end"`
	Name     string `json:"name"`
	Target   string `json:"target"`
	Filename string `json:"file"`
	Line     uint32 `json:"line"`
}

// ThreadName returns the name under which a thread is shown: the properties thread-name and thread-id of its stream, joined by a hyphen,
// where the stream's own id takes the place of a missing thread-id, and an empty property counts as missing.
func ThreadName(streamID string, properties []Property) string {
	name, id := "", ""
	for _, p := range properties {
		switch p.Key {
		case "thread-name":
			name = p.Value
		case "thread-id":
			id = p.Value
		}
	}
	if id == "" {
		id = streamID
	}
	if name == "" {
		return id
	}
	return name + "-" + id
}
