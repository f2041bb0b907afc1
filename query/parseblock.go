package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/functions/jsonb"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// Bounds of parse_block. Events refer to records that refer to others, so a small block can name many values, and a long text again and
// again.
const (
	maxParses       = 2         // blocks that are decoded at a time: each may hold some 256 MiB of events
	maxParsedValues = 16 << 20  // values of all events of a block, as often as they are named
	maxParsedText   = 512 << 20 // bytes of all texts of a block, as often as they are named
	maxEventText    = 64 << 20  // bytes of all texts of an event
	maxParsedDepth  = 64        // records within records
	parsedBatchSize = 4 << 20   // bytes of documents that are written together
	parsedBatchRows = 32 << 10  // and how many
)

// parsedSchema is the file of parse_block's rows. A document is text in the engine.
func parsedSchema() *arrow.Schema {
	t, _ := tables.Function("parse_block")
	fields := t.FileSchema().Fields()
	fields[t.Index("value")].Type = tables.DBin.FileType()
	return arrow.NewSchema(fields, nil)
}

// parsedRelation is the result of parse_block(block): the events of a block that was under way in the query's range.
func (r *run) parsedRelation(ctx context.Context, f dialect.FunctionRef) (string, error) {
	if r.unread() {
		return `SELECT CAST(NULL AS BIGINT) AS object_index, CAST(NULL AS VARCHAR) AS type_name, CAST(NULL AS JSON) AS "value" WHERE false`, nil
	}
	if len(f.Args) < 1 {
		return "", fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	text, _ := f.Args[0].(string)
	id, err := telemetry.ParseID(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Name, err)
	}
	key, err := r.findBlock(ctx, id)
	if err != nil {
		return "", err
	}
	select {
	case r.s.parses <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("wait for other blocks: %w", ctx.Err())
	}
	defer func() { <-r.s.parses }()
	file, err := r.parse(ctx, key)
	if err != nil {
		return "", err
	}
	r.hold(file.release)
	return "SELECT * FROM " + scan([]string{file.path}), nil
}

// findBlock finds a block in table blocks under the query's range.
func (r *run) findBlock(ctx context.Context, id telemetry.ID) (key catalog.BlockKey, err error) {
	key.BlockID = id
	relation, err := r.blocks(ctx, tables.Must("blocks"))
	if err != nil {
		return key, err
	}
	c, err := r.s.parts.Engine.Conn(ctx)
	if err != nil {
		return key, err
	}
	defer c.Close() //nolint:errcheck // the connection is thrown away
	sql := `SELECT stream_id, epoch_ns(begin_time) AS begin_ns FROM (` + relation + `) WHERE block_id = ` + quoteText(id.String()) + ` LIMIT 1`
	result, err := c.Query(ctx, sql, engine.QueryOptions{})
	if err != nil {
		return key, fmt.Errorf("find block %s: %w", id, err)
	}
	defer result.Close() //nolint:errcheck // never fails
	batch, err := result.Next()
	if errors.Is(err, io.EOF) {
		return key, &Error{Code: codeInvalid, Message: "Error during planning: " + notInRange(id, r.req.Range)}
	}
	if err != nil {
		return key, fmt.Errorf("find block %s: %w", id, err)
	}
	defer batch.Release()
	begin, ok := batch.Column(1).(*array.Int64)
	if !ok {
		return key, fmt.Errorf("find block %s: unexpected columns %s", id, batch.Schema())
	}
	key.BeginTime = begin.Value(0)
	key.StreamID, err = telemetry.ParseID(batch.Column(0).ValueStr(0))
	return key, err
}

// notInRange is the text that clients know.
func notInRange(id telemetry.ID, r *Range) string {
	text := fmt.Sprintf("parse_block: block '%s' not found in `blocks`", id)
	if r == nil {
		return text + "."
	}
	return text + fmt.Sprintf(" for the queried range [%s, %s]. The block may be outside of it: widen the range", clock(r.Begin), clock(r.End))
}

// parse writes the events of a block to a file of parsedSchema.
func (r *run) parse(ctx context.Context, key catalog.BlockKey) (*cachedFile, error) {
	streams, err := r.s.parts.Catalog.Streams(ctx, []telemetry.ID{key.StreamID})
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", key.StreamID, err)
	}
	if len(streams) == 0 || streams[0].Registered == 0 {
		return nil, fmt.Errorf("parsing block %s: its stream %s is not registered", key.BlockID, key.StreamID)
	}
	if format := streams[0].Format; format != telemetry.FormatTransit {
		return nil, &Error{Code: codeInvalid, Message: fmt.Sprintf("Error during planning: no decoder for streams.format='%s' (known formats: %s)", format, telemetry.FormatTransit)}
	}
	locator := locate.New(r.s.parts.Catalog, r.s.parts.Files)
	rows, err := locator.Begun(ctx, key.StreamID, key.BeginTime, key.BeginTime+1)
	if err != nil {
		return nil, fmt.Errorf("find the body of block %s: %w", key.BlockID, err)
	}
	at := slices.IndexFunc(rows, func(b catalog.BlockRow) bool { return b.ID == key.BlockID })
	if at < 0 {
		return nil, fmt.Errorf("find the body of block %s: the catalog does not know it any more", key.BlockID)
	}
	body, err := locator.Body(ctx, &rows[at])
	if err != nil {
		return nil, fmt.Errorf("error downloading payload: block %s: %w", key.BlockID, err)
	}
	w, err := r.s.snapshots.folder.create("block", parsedSchema())
	if err != nil {
		return nil, err
	}
	defer w.abort()
	if err := parseBody(ctx, &streams[0], body, w); err != nil {
		return nil, fmt.Errorf("parsing block %s: %w", key.BlockID, err)
	}
	return w.finish()
}

// parseBody writes the events of a body.
func parseBody(ctx context.Context, s *catalog.StreamRow, body []byte, w *parquetWriter) error {
	deps, err := wire.DecodeTypes(slices.Clone(s.DependenciesCBOR))
	if err != nil {
		return err
	}
	objs, err := wire.DecodeTypes(slices.Clone(s.ObjectsCBOR))
	if err != nil {
		return err
	}
	d, err := wire.NewDecoder(deps, objs, wire.DefaultLimits)
	if err != nil {
		return err
	}
	block, err := wire.DecodeBlock(body)
	if err != nil {
		return err
	}
	p := parser{writer: w, left: maxParsedValues, text: maxParsedText, rows: newColumnBuilder(w.schema, 0)}
	defer func() { p.rows.b.Release() }()
	_, err = d.Objects(&block, func(index int, o *wire.Object) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return p.add(block.ObjectOffset+int64(index), o)
	})
	if err != nil {
		return err
	}
	return p.flush()
}

// parser makes rows of events.
type parser struct {
	writer *parquetWriter
	rows   *columnBuilder
	n      int // rows that wait
	bytes  int // of their documents
	left   int // values that may still be named
	text   int // bytes of texts that may still be
	event  int // and of the event at hand
	buf    []byte
}

func (p *parser) add(index int64, o *wire.Object) error {
	p.event = maxEventText
	v, err := p.object(o, 0)
	if err != nil {
		return err
	}
	p.buf = jsonb.AppendCanonical(p.buf[:0], &v)
	p.rows.int64(index)
	p.rows.text(clean(o.Type))
	p.rows.text(string(p.buf))
	p.n++
	if p.bytes += len(p.buf); p.bytes >= parsedBatchSize || p.n >= parsedBatchRows {
		return p.flush()
	}
	return nil
}

// flush writes what waits, as a row group of its own: one of the usual length holds any number of bytes.
func (p *parser) flush() error {
	if p.n == 0 {
		return nil
	}
	p.n, p.bytes = 0, 0
	batch := p.rows.b.NewRecordBatch()
	defer batch.Release()
	return p.writer.writeGroup(batch)
}

// string makes a document of a text.
func (p *parser) string(s string) (jsonb.Value, error) {
	p.text -= len(s)
	if p.event -= len(s); p.text < 0 || p.event < 0 {
		return jsonb.Value{}, errTooMuchText
	}
	return jsonb.StringValue(clean(s)), nil
}

// Failures of parsing.
var (
	errTooManyValues = tooLarge("its events name more than %d values", maxParsedValues)
	errTooMuchText   = tooLarge("its events name texts of more than %d MiB, or one of them of more than %d MiB", maxParsedText>>20, maxEventText>>20)
	errTooDeep       = fmt.Errorf("its records are nested more than %d deep", maxParsedDepth)
)

// tooLarge is the error of a block that can be read, but not shown.
func tooLarge(format string, args ...any) error {
	return &Error{
		Code: codeExhausted, Message: "Resources exhausted: the block cannot be parsed: " + fmt.Sprintf(format, args...),
		Help: "get_payload gives it as it came",
	}
}

// object makes a document of an event, or of a record that it refers to: its members by name, and its type.
func (p *parser) object(o *wire.Object, depth int) (jsonb.Value, error) {
	if depth > maxParsedDepth {
		return jsonb.Value{}, errTooDeep
	}
	members := make([]jsonb.Member, 0, len(o.Fields)+1)
	members = append(members, jsonb.Member{Key: typeMember, Value: jsonb.StringValue(clean(o.Type))})
	for i := range o.Fields {
		v, err := p.value(&o.Fields[i].Value, depth)
		if err != nil {
			return v, err
		}
		members = append(members, jsonb.Member{Key: clean(o.Fields[i].Name), Value: v})
	}
	return objectOf(members), nil
}

// typeMember names the type of an object, and propertySet is the type of a set of properties.
const (
	typeMember  = "__type"
	propertySet = "property_set"
)

// objectOf sorts members. Of those with one key the last counts.
func objectOf(members []jsonb.Member) jsonb.Value {
	slices.Reverse(members)
	slices.SortStableFunc(members, func(a, b jsonb.Member) int { return strings.Compare(a.Key, b.Key) })
	members = slices.CompactFunc(members, func(a, b jsonb.Member) bool { return a.Key == b.Key })
	return jsonb.Value{Kind: jsonb.Object, Members: members}
}

func (p *parser) value(v *wire.Value, depth int) (jsonb.Value, error) {
	if p.left--; p.left < 0 {
		return jsonb.Value{}, errTooManyValues
	}
	switch v.Kind {
	case wire.ValueU8, wire.ValueU32, wire.ValueU64:
		return jsonb.UintValue(v.Uint()), nil
	case wire.ValueI64:
		return jsonb.IntValue(v.Int()), nil
	case wire.ValueF64:
		return jsonb.FloatValue(v.Float()), nil
	case wire.ValueText:
		return p.string(v.Text)
	case wire.ValueBlob:
		return jsonb.StringValue(fmt.Sprintf("<binary %d bytes>", len(v.Blob))), nil
	case wire.ValueObject:
		if v.Object == nil {
			return jsonb.Value{}, nil
		}
		return p.object(v.Object, depth+1)
	case wire.ValueProperties:
		members := make([]jsonb.Member, 0, len(v.Properties)+1)
		members = append(members, jsonb.Member{Key: typeMember, Value: jsonb.StringValue(propertySet)})
		for _, property := range v.Properties {
			if _, err := p.string(property.Key); err != nil {
				return jsonb.Value{}, err
			}
			value, err := p.string(property.Value)
			if err != nil {
				return value, err
			}
			members = append(members, jsonb.Member{Key: clean(property.Key), Value: value})
		}
		p.left -= len(v.Properties)
		return objectOf(members), nil
	default:
		return jsonb.Value{}, nil
	}
}

// clean makes a client's text UTF-8.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
