package flight

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/micromegas-go/micromegas/query"
)

// sender is the part of a gRPC stream that a query's rows go to.
type sender interface {
	SendMsg(m any) error
}

// streamWriter writes the messages of one answer: the schema at once, then dictionaries and record batches.
type streamWriter struct {
	to         sender
	batchBytes int
	ipc        *ipc.Writer
	skipSchema bool // the IPC writer's first payload is the schema, which is already sent
	owner      *owner
}

// newStreamWriter sends the schema message, with the warnings as its metadata.
func newStreamWriter(to sender, schema *arrow.Schema, warnings []string, batchBytes int) (*streamWriter, error) {
	meta, err := marshalWarnings(warnings)
	if err != nil {
		return nil, err
	}
	payload := ipc.GetSchemaPayload(schema, memory.DefaultAllocator)
	defer payload.Release()
	header := payload.Meta()
	defer header.Release()
	if err := to.SendMsg(&frame{header: header.Bytes(), metadata: meta}); err != nil {
		return nil, err
	}
	w := &streamWriter{to: to, batchBytes: batchBytes, skipSchema: true}
	w.ipc = ipc.NewWriterWithPayloadWriter(w, ipc.WithSchema(schema))
	return w, nil
}

// appMetadata is the app_metadata of a schema message.
type appMetadata struct {
	Warnings []string `json:"warnings"`
}

func marshalWarnings(warnings []string) ([]byte, error) {
	if len(warnings) == 0 {
		return nil, nil
	}
	return json.Marshal(appMetadata{warnings})
}

// copyAll sends every batch of an answer.
func (w *streamWriter) copyAll(a *query.Answer) error {
	for {
		batch, err := a.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = w.write(batch)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// write sends a batch in parts near the wanted size. A batch without rows is not sent.
func (w *streamWriter) write(batch arrow.RecordBatch) error {
	rows := batch.NumRows()
	if rows == 0 {
		return nil
	}
	parts := min((sizeBytes(batch)+int64(w.batchBytes)-1)/int64(w.batchBytes), rows)
	if parts <= 1 {
		return w.writeWhole(batch)
	}
	step := (rows + parts - 1) / parts
	for at := int64(0); at < rows; at += step {
		part := batch.NewSlice(at, min(at+step, rows))
		err := w.writeWhole(part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// sizeBytes returns about how many bytes a batch's buffers hold.
func sizeBytes(batch arrow.RecordBatch) int64 {
	var n uint64
	for _, c := range batch.Columns() {
		n += c.Data().SizeInBytes()
	}
	return int64(n)
}

// writeWhole sends a batch as one message, after the dictionaries it needs. The batch lives until it is on the wire.
func (w *streamWriter) writeWhole(batch arrow.RecordBatch) error {
	batch.Retain()
	w.owner = newOwner(batch.Release)
	err := w.ipc.Write(batch)
	w.owner.drop()
	w.owner = nil
	return err
}

// Start implements ipc.PayloadWriter.
func (w *streamWriter) Start() error { return nil }

// Close implements ipc.PayloadWriter: the end of a Flight stream is the end of the call.
func (w *streamWriter) Close() error { return nil }

// WritePayload implements ipc.PayloadWriter. The payload's own buffers are in Go memory and outlive their release; those
// it shares with the batch are kept by the batch's owner.
func (w *streamWriter) WritePayload(p ipc.Payload) error {
	if w.skipSchema {
		w.skipSchema = false
		return nil
	}
	header := p.Meta()
	defer header.Release()
	f := &frame{header: header.Bytes(), owner: w.owner}
	if err := p.SerializeBody((*pieces)(f)); err != nil {
		return fmt.Errorf("collect a batch's buffers: %w", err)
	}
	return w.to.SendMsg(f)
}

// pieces collects the slices written to it as the body of a frame, without copying.
type pieces frame

// Write keeps p itself.
func (c *pieces) Write(p []byte) (int, error) {
	if len(p) > 0 {
		c.body = append(c.body, p)
	}
	return len(p), nil
}
