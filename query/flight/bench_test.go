package flight_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/query/client"
)

// BenchmarkStream streams a million log-like rows to the Go client in batches of 8,192, as the engine makes them.
func BenchmarkStream(b *testing.B) {
	const rows, size = 1_000_000, 8192
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: arrow.FixedWidthTypes.Timestamp_ns},
		{Name: "process_id", Type: arrow.BinaryTypes.String},
		{Name: "level", Type: arrow.PrimitiveTypes.Int32},
		{Name: "target", Type: arrow.BinaryTypes.String},
		{Name: "msg", Type: arrow.BinaryTypes.String},
	}, nil)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range size {
		rb.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(i))
		rb.Field(1).(*array.StringBuilder).Append("11111111-1111-4111-8111-111111111111")
		rb.Field(2).(*array.Int32Builder).Append(int32(i % 6))
		rb.Field(3).(*array.StringBuilder).Append("game::net")
		rb.Field(4).(*array.StringBuilder).Append(fmt.Sprintf("connection %d was lost after some time", i))
	}
	batch := rb.NewRecordBatch()
	rb.Release()
	bytes := int64(0)
	for _, c := range batch.Columns() {
		bytes += int64(c.Data().SizeInBytes())
	}
	f := &fake{schema: schema, batches: func(yield func(arrow.RecordBatch, error) bool) {
		for range rows / size {
			batch.Retain()
			if !yield(batch, nil) {
				return
			}
		}
	}}
	addr, _ := serve(b, f, nil)
	c := dial(b, addr, "")
	b.SetBytes(bytes * (rows / size))
	b.ReportAllocs()
	for b.Loop() {
		answer, err := c.Query(b.Context(), "SELECT 1", client.QueryOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := answer.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		answer.Close()
	}
	b.ReportMetric(float64(rows/size*size)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}
