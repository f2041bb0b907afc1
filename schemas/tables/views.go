package tables

import (
	"slices"
	"time"
)

// Numbers of the views, as the catalog stores them. They are never reused.
const (
	NoLogEntries = iota + 1
	NoMeasures
	NoProcesses
	NoStreams
	NoBlocks
	NoLogStats
	NoImages
	NoAsyncEvents
	NoNetSpans
	NoThreadSpans
	NoOtelSpans
)

// LogStatsBin is the length of what one row of log_stats counts.
const LogStatsBin = time.Minute

// All returns every view set in the order of list_view_sets. The slice is new, and so are the tables.
func All() []*Table {
	return []*Table{
		logEntries(), measures(), processes(), streams(), blocks(), logStats(),
		images(), asyncEvents(), netSpans(), threadSpans(), otelSpans(),
	}
}

// Lookup returns the view set called name.
func Lookup(name string) (*Table, bool) {
	return find(All(), name)
}

// Must returns the view set called name, which has to exist.
func Must(name string) *Table {
	t, ok := Lookup(name)
	if !ok {
		panic("tables: no view set " + name)
	}
	return t
}

func find(all []*Table, name string) (*Table, bool) {
	i := slices.IndexFunc(all, func(t *Table) bool { return t.Name == name })
	if i < 0 {
		return nil, false
	}
	return all[i], true
}

func col(name string, t Type, doc string) Column {
	return Column{Name: name, Type: t, Doc: doc}
}

func null(name string, t Type, doc string) Column {
	return Column{Name: name, Type: t, Nullable: true, Doc: doc}
}

// eventColumns are the first columns of every view whose rows are events of a process.
func eventColumns() []Column {
	return []Column{
		col("process_id", DStr, "process that emitted the event"),
		col("stream_id", DStr, "stream that carried it"),
		col("block_id", DStr, "block that carried it"),
		col("insert_time", TS, "when the gateway took the block, in microseconds"),
		col("exe", DStr, "executable of the process"),
		col("username", DStr, "user of the process"),
		col("computer", DStr, "machine of the process"),
		col("time", TS, "when the event happened"),
	}
}

func atTime() RangeRule { return RangeRule{Begin: "time", End: "time"} }

func logEntries() *Table {
	return &Table{
		Name: "log_entries", No: NoLogEntries, Global: true, Instance: Process, HasMaker: true,
		SchemaHash: []byte{6}, Range: atTime(), Doc: "Log entries, a row each.",
		Columns: append(eventColumns(),
			col("target", DStr, "where in the program it comes from"),
			col("level", I32, "1 fatal, 2 error, 3 warn, 4 info, 5 debug, 6 trace"),
			col("msg", Str, "the message"),
			col("properties", DBin, "properties of the entry; never null, {} when there are none"),
			col("process_properties", DBin, "properties of the process"),
		),
	}
}

func measures() *Table {
	return &Table{
		Name: "measures", No: NoMeasures, Global: true, Instance: Process, HasMaker: true,
		SchemaHash: []byte{7}, Range: atTime(), Doc: "Values of metrics, a row each.",
		Columns: append(eventColumns(),
			col("target", DStr, "where in the program it comes from"),
			col("name", DStr, "name of the metric"),
			col("unit", DStr, "unit of the value"),
			col("value", F64, "the value; integers are converted"),
			col("properties", DBin, "properties of the measure; never null, {} when there are none"),
			col("process_properties", DBin, "properties of the process"),
		),
	}
}

func processes() *Table {
	columns := []Column{
		col("process_id", Str, "id of the process"),
		null("exe", Str, "executable"),
		null("username", Str, "user's login name"),
		null("realname", Str, "user's full name"),
		null("computer", Str, "machine"),
		null("distro", Str, "operating system"),
		null("cpu_brand", Str, "processor"),
		null("tsc_frequency", I64, "ticks per second of the process's clock; 0 = unknown"),
		null("start_time", TS, "when the process started"),
		null("start_ticks", I64, "its clock at start_time"),
		null("insert_time", TS, "when the process was registered"),
		null("parent_process_id", Str, "process that started it; empty = none"),
		null("properties", DBin, "properties of the process"),
		null("last_update_time", TS, "when its last block was taken"),
		null("last_block_end_ticks", I64, "greatest end_ticks of its blocks, relative to start_ticks"),
		null("last_block_end_time", TS, "greatest end_time of its blocks"),
	}
	return &Table{
		Name: "processes", No: NoProcesses, Global: true, Columns: columns, SchemaHash: columnsHash(columns),
		Range: RangeRule{Begin: "insert_time", End: "last_update_time"}, Doc: "Processes, a row each.",
	}
}

func streams() *Table {
	columns := []Column{
		col("stream_id", Str, "id of the stream"),
		null("process_id", Str, "process it belongs to"),
		null("dependencies_metadata", Bin, "layout of its dependencies, CBOR"),
		null("objects_metadata", Bin, "layout of its events, CBOR"),
		null("tags", ListStr, "what it carries: log, metrics, cpu, …"),
		null("properties", DBin, "properties of the stream"),
		null("insert_time", TS, "when the stream was registered"),
		null("format", Str, "encoding of its blocks"),
		null("last_update_time", TS, "when its last block was taken"),
	}
	return &Table{
		Name: "streams", No: NoStreams, Global: true, Columns: columns, SchemaHash: columnsHash(columns),
		Range: RangeRule{Begin: "insert_time", End: "last_update_time"}, Doc: "Streams of events, a row each.",
	}
}

func blocks() *Table {
	return &Table{
		Name: "blocks", No: NoBlocks, Global: true, SchemaHash: []byte{3},
		Range: RangeRule{Begin: "begin_time", End: "insert_time"}, SortOrder: []string{"insert_time"},
		Doc: "Blocks as they were taken, with their stream and process.",
		Columns: []Column{
			col("block_id", Str, "id of the block"),
			col("stream_id", Str, "stream it belongs to"),
			col("process_id", Str, "process it belongs to"),
			col("begin_time", TS, "when the block was begun"),
			col("begin_ticks", I64, "clock at begin_time, relative to start_ticks"),
			col("end_time", TS, "when the block was ended"),
			col("end_ticks", I64, "clock at end_time, relative to start_ticks"),
			col("nb_objects", I32, "number of events"),
			col("object_offset", I64, "events of the stream before this block"),
			col("payload_size", I64, "bytes of its payload in canonical form"),
			col("insert_time", TS, "when the gateway took it"),
			col("streams.dependencies_metadata", Bin, "layout of the dependencies, CBOR"),
			col("streams.objects_metadata", Bin, "layout of the events, CBOR"),
			null("streams.tags", ListStr, "what the stream carries"),
			col("streams.properties", DBin, "properties of the stream"),
			col("streams.insert_time", TS, "when the stream was registered"),
			col("streams.format", Str, "encoding of the block"),
			col("processes.start_time", TS, "when the process started"),
			col("processes.start_ticks", I64, "its clock at start_time"),
			col("processes.tsc_frequency", I64, "ticks per second; 0 = unknown"),
			col("processes.exe", Str, "executable"),
			col("processes.username", Str, "user's login name"),
			col("processes.realname", Str, "user's full name"),
			col("processes.computer", Str, "machine"),
			col("processes.distro", Str, "operating system"),
			col("processes.cpu_brand", Str, "processor"),
			col("processes.insert_time", TS, "when the process was registered"),
			col("processes.parent_process_id", Str, "process that started it; empty = none"),
			col("processes.properties", DBin, "properties of the process"),
		},
	}
}

func logStats() *Table {
	columns := []Column{
		null("time_bin", TS, "first instant of the minute"),
		col("process_id", DStr, "process that logged"),
		col("level", I32, "level of the entries"),
		col("target", DStr, "target of the entries"),
		null("count", I64, "number of entries"),
	}
	return &Table{
		Name: "log_stats", No: NoLogStats, Global: true, Columns: columns, SchemaHash: columnsHash(columns),
		Range:     RangeRule{Begin: "time_bin", End: "time_bin", Span: LogStatsBin},
		SortOrder: []string{"time_bin", "process_id", "level", "target"},
		Doc:       "Log entries counted per minute, process, level and target.",
	}
}

func images() *Table {
	return &Table{
		Name: "images", No: NoImages, Instance: Process, HasMaker: true, SchemaHash: []byte{2}, Range: atTime(),
		Doc: "Images that a process emitted.",
		Columns: append(eventColumns(),
			col("name", Str, "name of the image"),
			col("format", DStr, "MIME type"),
			col("payload_size", I64, "bytes of data"),
			col("data", Bin, "the image"),
		),
	}
}

func asyncEvents() *Table {
	return &Table{
		Name: "async_events", No: NoAsyncEvents, Instance: Process, HasMaker: true, SchemaHash: []byte{3}, Range: atTime(),
		Doc: "Begins and ends of asynchronous spans of a process.",
		Columns: []Column{
			col("stream_id", DStr, "stream that carried the event"),
			col("block_id", DStr, "block that carried it"),
			col("time", TS, "when it happened"),
			col("event_type", DStr, "begin or end"),
			col("span_id", I64, "id of the span"),
			col("parent_span_id", I64, "id of the enclosing span; 0 = none"),
			col("depth", U32, "number of enclosing spans"),
			col("hash", U32, "hash of the scope"),
			col("name", DStr, "name of the scope"),
			col("filename", DStr, "source file"),
			col("target", DStr, "where in the program it comes from"),
			col("line", U32, "source line"),
		},
	}
}

func netSpans() *Table {
	return &Table{
		Name: "net_spans", No: NoNetSpans, Instance: Process, HasMaker: true, SchemaHash: []byte{2},
		Range: RangeRule{Begin: "begin_time", End: "end_time"}, Doc: "What a process sent and received, nested by connection.",
		Columns: []Column{
			col("process_id", DStr, "process that emitted the span"),
			col("stream_id", DStr, "stream that carried it"),
			col("span_id", I64, "id of the span"),
			col("parent_span_id", I64, "id of the enclosing span; -1 = none"),
			col("depth", U32, "number of enclosing spans"),
			col("kind", DStr, "connection, object, property or rpc"),
			col("name", DStr, "name of what was sent"),
			col("connection_name", DStr, "name of the enclosing connection"),
			col("is_outgoing", Bool, "sent rather than received"),
			col("begin_bits", I64, "bits of the parent before this span"),
			col("end_bits", I64, "bits of the parent after this span"),
			col("bit_size", I64, "bits of this span"),
			col("begin_time", TS, "when it began"),
			col("end_time", TS, "when it ended"),
		},
	}
}

// spanColumns are the columns of a span of a thread.
func spanColumns() []Column {
	return []Column{
		col("id", I64, "number of the begin event in its stream; -1 for the root"),
		col("parent", I64, "id of the enclosing span"),
		col("depth", U32, "0 = root"),
		col("hash", U32, "hash of the scope"),
		col("begin", TS, "when it began"),
		col("end", TS, "when it ended"),
		col("duration", I64, "end - begin in nanoseconds"),
		col("name", DStr, "name of the scope"),
		col("target", DStr, "where in the program it comes from"),
		col("filename", DStr, "source file"),
		col("line", U32, "source line"),
	}
}

func threadSpans() *Table {
	return &Table{
		Name: "thread_spans", No: NoThreadSpans, Instance: Stream, HasMaker: true, SchemaHash: []byte{3},
		Range: RangeRule{Begin: "begin", End: "end"}, Doc: "Spans of one thread as a call tree.", Columns: spanColumns(),
		Fleet: &Table{
			Name: "thread_spans", Range: RangeRule{Begin: "begin", End: "end"}, Doc: "Spans of all threads, each with its thread and process.",
			Columns: append(OwnerColumns(), spanColumns()...),
		},
	}
}

// OwnerColumns are the columns of a Fleet that say whose a row is: they are the same for all rows of a thread.
func OwnerColumns() []Column {
	return []Column{
		col("process_id", DStr, "process of the thread"),
		col("exe", DStr, "executable of the process"),
		col("username", DStr, "user of the process"),
		col("computer", DStr, "machine of the process"),
		col("process_properties", DBin, "properties of the process"),
		col("stream_id", DStr, "the thread"),
		col("thread_name", DStr, "name and id of the thread"),
	}
}

func otelSpans() *Table {
	return &Table{
		Name: "otel_spans", No: NoOtelSpans, Instance: Process, HasMaker: true, SchemaHash: []byte{1},
		Range: RangeRule{Begin: "start_time", End: "end_time"}, Doc: "OpenTelemetry spans of a process.",
		Columns: []Column{
			col("process_id", DStr, "process that emitted the span"),
			col("stream_id", DStr, "stream that carried it"),
			col("block_id", DStr, "block that carried it"),
			col("insert_time", TS, "when the gateway took the block"),
			col("exe", Str, "executable of the process"),
			col("username", Str, "user of the process"),
			col("computer", Str, "machine of the process"),
			col("process_properties", DBin, "properties of the process"),
			col("trace_id", FSB16, "trace"),
			col("span_id", FSB8, "span"),
			null("parent_span_id", FSB8, "enclosing span"),
			col("start_time", TS, "when it began"),
			col("end_time", TS, "when it ended"),
			col("duration", I64, "end_time - start_time in nanoseconds"),
			col("name", DStr, "name of the operation"),
			col("kind", DStr, "UNSPECIFIED, INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER"),
			col("status", DStr, "UNSET, OK or ERROR"),
			null("status_message", Str, "text of the status"),
			col("properties", DBin, "attributes"),
			col("events", Bin, "JSONB array of events"),
			col("links", Bin, "JSONB array of links"),
		},
	}
}
