package query

import (
	"errors"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// TestTextsOfEventsAreCountedAsOftenAsTheyAreNamed parses events that all refer to one record: the block has its text once.
func TestTextsOfEventsAreCountedAsOftenAsTheyAreNamed(t *testing.T) {
	folder, err := openCacheFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 1<<10)
	record := &wire.Object{Type: "record", Fields: []wire.Field{{Name: "text", Value: wire.Value{Kind: wire.ValueText, Text: text}}}}
	event := &wire.Object{Type: "event", Fields: []wire.Field{
		{Name: "record", Value: wire.Value{Kind: wire.ValueObject, Object: record}},
		{Name: "set", Value: wire.Value{Kind: wire.ValueProperties, Properties: []telemetry.Property{{Key: "k", Value: text}}}},
	}}
	const fits = 10
	p := parser{left: maxParsedValues, text: fits * (2*len(text) + 1)}
	if p.writer, err = folder.create("block", parsedSchema()); err != nil {
		t.Fatal(err)
	}
	defer p.writer.abort()
	p.rows = newColumnBuilder(p.writer.schema, 0)
	defer p.rows.b.Release()
	for i := range int64(fits) {
		if err := p.add(i, event); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	if err := p.add(fits, event); !errors.Is(err, errTooMuchText) {
		t.Errorf("one event too many: error %v", err)
	}
	p.text = 1 << 40
	record.Fields[0].Value.Text = strings.Repeat("x", maxEventText)
	if err := p.add(fits, event); !errors.Is(err, errTooMuchText) {
		t.Errorf("an event of too long texts: error %v", err)
	}
	if err := p.flush(); err != nil || p.writer.rows != fits {
		t.Errorf("%d rows, error %v", p.writer.rows, err)
	}
}
