package threadspans

import (
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/columnar"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// View returns thread_spans.
func View() justintime.View {
	return justintime.View{
		Table: tables.Must("thread_spans"), Tag: telemetry.TagCPU, Clock: justintime.ProcessClock, Chained: true,
		Decode: decode, Begin: begin, Window: window,
	}
}

func decode(src *materializers.Source) (any, wire.Counts, error) {
	b := &wire.SpanBlock{SkipAsyncs: true}
	counts, err := src.Decoder.Spans(src.Block, b)
	if err == nil && len(b.Threads) > src.MaxRows {
		err = materializers.ErrTooManyRows
	}
	return b, counts, err
}

func begin(rows *columnar.Rows, in *justintime.Instance, carry []byte) (justintime.Builder, error) {
	return newBuilder(rows, in, carry)
}

// rootOf returns the scope of the root of an instance's only stream.
func rootOf(in *justintime.Instance) wire.Scope {
	for _, s := range in.Streams {
		name := telemetry.ThreadName(s.Text, s.Properties)
		return wire.Scope{Name: name, Hash: wire.ScopeHash(name, "", "", 0)}
	}
	return wire.Scope{}
}
