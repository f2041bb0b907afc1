package wire

import "github.com/micromegas-go/micromegas/schemas/telemetry"

// The ready-made layouts below are those of the Rust client (net: of the Unreal plugin, which alone sends it). The Append functions in
// append.go write instances in them. Any other layout is as good as long as the stream declares it.

// Type indices of the dependencies of LogTypes and MetricsTypes.
const (
	DepStaticString           = 0
	DepStaticStringDependency = 1
	DepMetadata               = 2 // LogMetadataRecord, MetricMetadataDependency
	DepPropertySet            = 3
)

// Type indices of the objects of LogTypes.
const (
	LogStaticStr = iota
	LogString
	LogStaticStrInterop
	LogStringInterop
	LogTagged
)

// Type indices of the objects of MetricsTypes.
const (
	MetricInteger = iota
	MetricFloat
	MetricTaggedFloat
	MetricTaggedInteger
)

// Type indices of the dependencies of CPUTypes.
const (
	CPUDepSpan = iota
	CPUDepLocation
	CPUDepStaticString
)

// Type indices of the objects of CPUTypes.
const (
	CPUBeginThreadSpan = iota
	CPUEndThreadSpan
	CPUBeginThreadNamedSpan
	CPUEndThreadNamedSpan
	CPUBeginAsyncSpan
	CPUEndAsyncSpan
	CPUBeginAsyncNamedSpan
	CPUEndAsyncNamedSpan
)

// Type indices of NetTypes.
const (
	NetDepStaticStringDependency = 0

	NetConnectionBegin = iota - 1
	NetConnectionEnd
	NetObjectBegin
	NetObjectEnd
	NetProperty
	NetRPCBegin
	NetRPCEnd
)

func ref(name, typeName string, offset uint32) telemetry.Member {
	return telemetry.Member{Name: name, TypeName: typeName, Offset: offset, Size: 8, IsReference: true}
}

func member(name, typeName string, offset, size uint32) telemetry.Member {
	return telemetry.Member{Name: name, TypeName: typeName, Offset: offset, Size: size}
}

func dynamic(name string) telemetry.Type { return telemetry.Type{Name: name} }

func static(name string, size uint32, members ...telemetry.Member) telemetry.Type {
	return telemetry.Type{Name: name, Size: size, Members: members}
}

// stringRef is a struct of 16 bytes that wraps the id of a string.
func stringRef(name string) telemetry.Type {
	return telemetry.Type{Name: name, Size: 16, IsReference: true, Members: []telemetry.Member{ref("id", "u64", 0)}}
}

const (
	stringType = "* const u8"
	refType    = "StaticStringRef"
	idType     = "StringId"
)

// rowDependencies are the dependencies of logs and metrics around their record.
func rowDependencies(record telemetry.Type) []telemetry.Type {
	return []telemetry.Type{
		dynamic("StaticString"),
		dynamic("StaticStringDependency"),
		record,
		dynamic("PropertySetDependency"),
		static("Property", 32, member("name", refType, 0, 16), member("value", refType, 16, 16)),
		stringRef(refType),
	}
}

// LogTypes returns the layouts of a log stream.
func LogTypes() (deps, objs []telemetry.Type) {
	deps = rowDependencies(static("LogMetadataRecord", 48,
		member("id", "u64", 0, 8), ref("fmt_str", stringType, 8), ref("target", stringType, 16), ref("module_path", stringType, 24),
		ref("file", stringType, 32), member("line", "u32", 40, 4), member("level", "u32", 44, 4)))
	objs = []telemetry.Type{
		static("LogStaticStrEvent", 16, ref("desc", "& 'static LogMetadata < 'static >", 0), member("time", "i64", 8, 8)),
		dynamic("LogStringEventV2"),
		static("LogStaticStrInteropEvent", 48, member("time", "i64", 32, 8), member("level", "u32", 40, 4),
			member("target", idType, 0, 16), member("msg", idType, 16, 16)),
		dynamic("LogStringInteropEventV3"),
		dynamic("TaggedLogString"),
		stringRef(refType),
		stringRef(idType),
	}
	return deps, objs
}

// MetricsTypes returns the layouts of a metrics stream.
func MetricsTypes() (deps, objs []telemetry.Type) {
	deps = rowDependencies(static("MetricMetadataDependency", 48,
		member("id", "u64", 0, 8), ref("name", stringType, 8), ref("unit", stringType, 16), ref("target", stringType, 24),
		ref("file", stringType, 32), member("line", "u32", 40, 4), member("lod", "u32", 44, 4)))
	const desc, props = "& 'static StaticMetricMetadata", "& 'static PropertySet"
	plain := func(name, value string) telemetry.Type {
		return static(name, 24, ref("desc", desc, 0), member("value", value, 8, 8), member("time", "i64", 16, 8))
	}
	tagged := func(name, value string) telemetry.Type {
		return static(name, 32, ref("desc", desc, 0), ref("properties", props, 8), member("value", value, 16, 8), member("time", "i64", 24, 8))
	}
	objs = []telemetry.Type{
		plain("IntegerMetricEvent", "u64"), plain("FloatMetricEvent", "f64"),
		tagged("TaggedFloatMetricEvent", "f64"), tagged("TaggedIntegerMetricEvent", "u64"),
	}
	return deps, objs
}

// CPUTypes returns the layouts of a thread's stream of spans.
func CPUTypes() (deps, objs []telemetry.Type) {
	deps = []telemetry.Type{
		static("SpanRecord", 48,
			member("id", "u64", 0, 8), ref("name", stringType, 8), ref("target", stringType, 16), ref("module_path", stringType, 24),
			ref("file", stringType, 32), member("line", "u32", 40, 4), member("lod", "u32", 44, 4)),
		static("SpanLocationRecord", 40,
			member("id", "u64", 0, 8), ref("target", stringType, 8), ref("module_path", stringType, 16), ref("file", stringType, 24),
			member("line", "u32", 32, 4), member("lod", "u32", 36, 4)),
		dynamic("StaticString"),
	}
	const desc, location = "& 'static SpanMetadata", "& 'static SpanLocation"
	thread := func(name string) telemetry.Type {
		return static(name, 16, ref("thread_span_desc", desc, 0), member("time", "i64", 8, 8))
	}
	named := func(name string) telemetry.Type {
		return static(name, 32, ref("thread_span_location", location, 0), member("name", idType, 8, 16), member("time", "i64", 24, 8))
	}
	async := func(name string) telemetry.Type {
		return static(name, 40, ref("span_desc", desc, 0), member("span_id", "u64", 8, 8), member("parent_span_id", "u64", 16, 8),
			member("depth", "u32", 32, 4), member("time", "i64", 24, 8))
	}
	asyncNamed := func(name string) telemetry.Type {
		return static(name, 56, ref("span_location", location, 0), member("name", idType, 8, 16), member("span_id", "u64", 24, 8),
			member("parent_span_id", "u64", 32, 8), member("depth", "u32", 48, 4), member("time", "i64", 40, 8))
	}
	objs = []telemetry.Type{
		thread("BeginThreadSpanEvent"), thread("EndThreadSpanEvent"), named("BeginThreadNamedSpanEvent"), named("EndThreadNamedSpanEvent"),
		async("BeginAsyncSpanEvent"), async("EndAsyncSpanEvent"), asyncNamed("BeginAsyncNamedSpanEvent"), asyncNamed("EndAsyncNamedSpanEvent"),
		stringRef(idType),
	}
	return deps, objs
}

// ImageTypes returns the layouts of an image stream, which has no dependencies.
func ImageTypes() (deps, objs []telemetry.Type) {
	return nil, []telemetry.Type{dynamic("ImageEvent")}
}

// NetTypes returns the layouts of a net stream.
func NetTypes() (deps, objs []telemetry.Type) {
	end := func(name string) telemetry.Type {
		return static(name, 16, member("time", "uint64", 0, 8), member("bit_size", "uint32", 8, 4))
	}
	begin := func(name, object string) telemetry.Type {
		return static(name, 24, member("time", "uint64", 0, 8), ref(object, refType, 8))
	}
	wide := func(name string) telemetry.Member {
		return telemetry.Member{Name: name, TypeName: refType, Offset: 8, Size: 16, IsReference: true}
	}
	objs = []telemetry.Type{
		static("NetConnectionBeginEvent", 32, member("time", "uint64", 0, 8), wide("connection_name"), member("is_outgoing", "uint8", 24, 1)),
		end("NetConnectionEndEvent"),
		begin("NetObjectBeginEvent", "object_name"),
		end("NetObjectEndEvent"),
		static("NetPropertyEvent", 32, member("time", "uint64", 0, 8), wide("property_name"), member("bit_size", "uint32", 24, 4)),
		begin("NetRPCBeginEvent", "function_name"),
		end("NetRPCEndEvent"),
	}
	return []telemetry.Type{dynamic("StaticStringDependency")}, objs
}
