package query_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// logBody is the body of block B02 of the fixture, with events 4 and 5 of stream S1.
func logBody() []byte {
	var deps, objs []byte
	text := func(id uint64, s string) uint64 {
		deps = wire.AppendStaticString(deps, wire.DepStaticString, id, s)
		return id
	}
	meta := func(id uint64, target string, level uint8) uint64 {
		deps = wire.AppendLogMetadata(deps, &wire.Metadata{ID: id, Message: text(id+1, "{}"), Target: text(id+2, target), Module: text(id+3, target), File: text(id+4, "f.rs"), Line: 7, Level: uint32(level)})
		return id
	}
	ai, core := meta(10, "game::ai", 5), meta(20, "game::core", 1)
	deps = wire.AppendStaticStringDependency(deps, wire.DepStaticStringDependency, 31, "Peer")
	deps = wire.AppendStaticStringDependency(deps, wire.DepStaticStringDependency, 32, "eve")
	deps = wire.AppendPropertySet(deps, 30, [2]wire.StaticRef{{ID: 31}, {ID: 32}})
	objs = wire.AppendLogString(objs, ai, 1_000_000+nanos(61), "tick 1")
	objs = wire.AppendLogTagged(objs, core, 30, 1_000_000+nanos(119), "crash")
	return wire.AppendBlock(nil, &telemetry.Block{
		ID: querytest.BlockID(2), StreamID: querytest.StreamID(1), ProcessID: querytest.P1, BeginTime: querytest.At(60), EndTime: querytest.At(120),
		BeginTicks: nanos(60), EndTicks: nanos(120), ObjectOffset: 4, NbObjects: 2,
	}, wire.Compress(nil, deps), wire.Compress(nil, objs))
}

func TestParseBlock(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(1), querytest.P1, "log", wire.LogTypes)}, logBody())
	a := spanAsker{t, h.Dial(t, "")}
	all := span(0, 3600)
	a.rows("SELECT object_index, type_name, jsonb_as_string(jsonb_get(value,'msg')) AS m FROM parse_block('B02') ORDER BY object_index", all,
		"4,LogStringEventV2,tick 1", "5,TaggedLogString,crash")
	a.rows("SELECT jsonb_format_json(value) FROM parse_block('B02') LIMIT 1", all,
		`"{""__type"":""LogStringEventV2"",""desc"":{""__type"":""LogMetadataRecord"",""file"":""f.rs"",""fmt_str"":""{}"",""id"":10,""level"":5,""line"":7,""module_path"":""game::ai"",""target"":""game::ai""},""msg"":""tick 1"",""time"":61001000000}"`)
	a.rows("SELECT property_get(jsonb_get(value, 'properties'), 'Peer') FROM parse_block('B02')", client.QueryOptions{}, "", "eve")
	a.rows("SELECT type_name, count(*) FROM parse_block('B05') GROUP BY type_name ORDER BY 1", all, "BeginThreadSpanEvent,5", "EndThreadSpanEvent,3")
	a.fails("SELECT * FROM parse_block('B02')", span(1800, 2400), codes.InvalidArgument, "not found in `blocks` for the queried range [2026-03-01T10:30:00Z, 2026-03-01T10:40:00Z]. The block may be outside")
	a.fails("SELECT * FROM parse_block('bbbbbbbb-0000-4000-8000-000000000099')", client.QueryOptions{}, codes.InvalidArgument, "not found in `blocks`.")
	a.fails("SELECT * FROM parse_block('x')", all, codes.InvalidArgument, "parse_block: 'x' is not a valid block id")
	empty := telemetry.Block{ID: querytest.BlockID(78), StreamID: querytest.StreamID(1), ProcessID: querytest.P1, BeginTime: querytest.At(60), EndTime: querytest.At(61)}
	h.store(t, nil, nil, wire.AppendBlock(nil, &empty, wire.Compress(nil, nil), wire.Compress(nil, nil)))
	a.rows("SELECT count(*), max(object_index) FROM parse_block('"+empty.ID.String()+"')", all, "0,")
	rows, err := h.Dial(t, "").Query(t.Context(), ids("SELECT * FROM parse_block('B02')"), client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	table, _ := tables.Function("parse_block")
	if got, want := schemaText(rows.Schema()), schemaText(table.ArrowSchema(false)); got != want {
		t.Errorf("schema %s, want %s", got, want)
	}
}

func TestGetPayload(t *testing.T) {
	h := newSpanHouse(t, querytest.Options{}, nil)
	h.spanFixture(t)
	h.store(t, nil, []catalog.StreamReg{streamOf(querytest.StreamID(1), querytest.P1, "log", wire.LogTypes)}, logBody())
	a := spanAsker{t, h.Dial(t, "")}
	none := client.QueryOptions{}
	v, err := wire.DecodeBlock(logBody())
	if err != nil {
		t.Fatal(err)
	}
	payload := wire.AppendPayload(nil, v.Dependencies, v.Objects)
	a.rows("SELECT octet_length(get_payload('P1','S1','B02')) AS n", none, fmt.Sprint(len(payload)))
	a.rows("SELECT encode(get_payload('P1','S1','B02'), 'hex') AS n", none, hex.EncodeToString(payload))
	a.rows("SELECT count(*) FROM blocks WHERE octet_length(get_payload(process_id, stream_id, block_id)) = payload_size", none, "5")
	a.rows("SELECT get_payload(NULL, stream_id, block_id) IS NULL FROM blocks LIMIT 1", none, "true")
	a.fails("SELECT octet_length(get_payload('P1','S1','B01')) AS n", none, codes.Internal, "error downloading payload")
	a.fails("SELECT octet_length(get_payload('"+querytest.P2.String()+"','S1','B02')) AS n", none, codes.Internal, "error downloading payload", "the process has no such block in the stream")
	a.fails("SELECT octet_length(get_payload('P1','S1','x')) AS n", none, codes.Internal, "error downloading payload")
	a.fails("SELECT octet_length(get_payload('x','S1','B02')) AS n", none, codes.InvalidArgument, "is not a valid process id")
}
