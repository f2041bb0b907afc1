package tables

// Functions returns the results of the built-in table functions, each as a table named for its function.
// view_instance is not among them: its columns are those of the view set it names.
func Functions() []*Table {
	return []*Table{
		{Name: "list_view_sets", Doc: "The view sets that exist.", Columns: []Column{
			col("view_set_name", Str, "name"),
			col("current_schema_hash", Bin, "hash of the schema that files are written with"),
			col("schema", Str, "columns, for reading by people"),
			col("has_view_maker", Bool, "view_instance can make instances"),
			col("global_instance_available", Bool, "usable as a table"),
		}},
		{Name: "list_partitions", Doc: "The partitions that exist.", Columns: []Column{
			col("view_set_name", Str, "view set"),
			col("view_instance_id", Str, "instance: global, a process or a stream"),
			col("begin_insert_time", TS, "insert times covered, first"),
			col("end_insert_time", TS, "insert times covered, last"),
			null("min_event_time", TS, "least time of its rows"),
			null("max_event_time", TS, "greatest time of its rows"),
			col("updated", TS, "when it was written"),
			null("file_path", Str, "key of the file"),
			col("file_size", I64, "bytes"),
			col("file_schema_hash", Bin, "hash of the file's schema"),
			col("source_data_hash", Bin, "number of source objects, or hash of the source blocks"),
			col("num_rows", I64, "rows"),
			col("partition_format_version", I32, "version of the file's format"),
			null("sort_order", ListStr, "columns by which the rows are known to be sorted"),
			null("max_sort_key_time", TS, "greatest sort key"),
		}},
		maintenance("retire_partitions"),
		maintenance("materialize_partitions"),
		maintenance("regenerate_partitions"),
		{Name: "perfetto_trace_chunks", Doc: "A Perfetto trace of a process, in pieces.", Columns: []Column{
			col("chunk_id", I32, "number of the piece, from 0"),
			col("chunk_data", Bin, "bytes of the piece"),
		}},
		{Name: "perfetto_trace", Doc: "A Perfetto trace of processes with all that they sent, in pieces.", Columns: []Column{
			col("chunk_id", I32, "number of the piece, from 0"),
			col("chunk_data", Bin, "bytes of the piece"),
		}},
		{Name: "process_spans", Doc: "Spans of all threads of a process.", Columns: append([]Column{
			col("stream_id", DStr16, "thread's stream; empty for asynchronous spans"),
			col("thread_name", DStr16, "name of the thread"),
		}, spanColumns()...)},
		{Name: "span_streams", Doc: "The streams that have spans, images or network events in the query's range.", Columns: []Column{
			col("process_id", Str, "process"),
			col("exe", Str, "its executable"),
			col("stream_id", Str, "stream"),
			col("thread_name", DStr16, "name of the stream's thread"),
			col("tag", DStr16, "what the stream carries: cpu, image or net"),
			col("blocks", I64, "blocks that meet the range"),
			col("events", I64, "events in these blocks"),
			col("bytes", I64, "bytes of their payloads in canonical form"),
			col("first", TS, "when the first of these blocks was begun"),
			col("last", TS, "when the last of them was ended"),
		}},
		{Name: "instance_cost", Doc: "What an instance of a just-in-time view would cost over the query's range.", Columns: []Column{
			col("view_set_name", Str, "view set"),
			col("view_instance_id", Str, "instance: a process or a stream"),
			col("blocks", I64, "blocks of the hours that the range touches"),
			col("blocks_to_decode", I64, "those that are in no partition that is up to date"),
			col("events", I64, "events in the blocks"),
			col("bytes", I64, "bytes of the blocks"),
			col("partitions", I64, "partitions that hold the rows, built or not"),
			col("fresh_partitions", I64, "those that are built and up to date"),
		}},
		{Name: "spans_around", Doc: "Spans of a process that were open at an instant; asynchronous ones if they began and ended within an hour of it, or within the query's range.", Columns: append([]Column{
			col("stream_id", DStr16, "thread's stream; empty for asynchronous spans"),
			col("thread_name", DStr16, "name of the thread"),
		}, spanColumns()...)},
		{Name: "call_tree", Doc: "Spans of threads added up by the path of calls that led to them.", Columns: append([]Column{
			col("path_id", I64, "hash of the path; equal paths have equal ids everywhere"),
			col("parent_path_id", I64, "path of the caller; 0 at the top"),
			col("depth", U32, "callers above"),
			col("name", Str, "name of the scope"),
			col("target", Str, "where in the program it comes from"),
			col("filename", Str, "source file"),
			col("line", U32, "source line"),
			col("hash", U32, "hash of the scope"),
		}, callColumns()...)},
		{Name: "call_names", Doc: "Spans of threads added up by name.", Columns: append([]Column{
			col("name", Str, "name of the scope"),
		}, callColumns()...)},
		{Name: "trace_spans", Doc: "The spans of one trace, of all processes.", Columns: []Column{
			col("process_id", Str, "process"),
			col("exe", Str, "its executable"),
			col("stream_id", Str, "thread's stream; of an asynchronous span the one that carried its begin"),
			col("thread_name", Str, "name of the thread"),
			col("kind", Str, "thread or async"),
			col("id", I64, "of a span of a thread: number of the begin event in its stream; of an asynchronous one: its id"),
			col("parent", I64, "id of the enclosing span in the process; 0 = none of its asynchronous spans"),
			col("begin", TS, "when it began"),
			col("end", TS, "when it ended, or the last that is known of the trace in its process"),
			col("duration", I64, "end - begin in nanoseconds"),
			col("name", Str, "name of the scope"),
			col("target", Str, "where in the program it comes from"),
			col("filename", Str, "source file"),
			col("line", U32, "source line"),
			col("properties", DBin, "properties of the span"),
		}},
		{Name: "parse_block", Doc: "The events of one block.", Columns: []Column{
			col("object_index", I64, "number of the event in its stream"),
			col("type_name", Str, "type of the event"),
			col("value", Bin, "JSONB object of its members"),
		}},
		{Name: "list_query_denials", Doc: "The rules that refuse queries.", Columns: []Column{
			col("rule_id", Str, "id of the rule"),
			col("created_at", TS, "when it was made"),
			col("created_by", Str, "who made it"),
			col("reason", Str, "why"),
			col("match_expr", Str, "which queries it refuses"),
			null("last_hit_at", TS, "when it last refused one"),
		}},
		maintenance("deny_queries"),
		{Name: "expand_histogram", Doc: "The bins of a histogram.", Columns: []Column{
			col("bin_center", F64, "middle of the bin"),
			col("count", U64, "values in the bin"),
		}},
		{Name: "jsonb_each", Doc: "The members of a JSONB object or array.", Columns: []Column{
			col("key", Str, "key, or index in an array"),
			col("value", Bin, "JSONB value"),
		}},
		{Name: "jsonb_array_elements", Doc: "The elements of a JSONB array.", Columns: []Column{
			col("value", Bin, "JSONB value"),
		}},
	}
}

// Function returns the result of the table function called name.
func Function(name string) (*Table, bool) {
	return find(Functions(), name)
}

// callColumns are what is added up of spans.
func callColumns() []Column {
	return []Column{
		col("calls", I64, "spans that meet the query's range"),
		col("total", I64, "nanoseconds in these spans, as far as they lie in the range; so are the others"),
		col("self", I64, "nanoseconds in these spans and in none below"),
		col("min", I64, "nanoseconds of the shortest"),
		col("max", I64, "nanoseconds of the longest"),
	}
}

// maintenance is the result of a function that works and reports.
func maintenance(name string) *Table {
	return &Table{Name: name, Doc: "Lines of progress.", Columns: []Column{
		col("time", TS, "when the line was written"),
		col("msg", Str, "what was done"),
	}}
}
