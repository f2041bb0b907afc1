package flight

import (
	"errors"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	protoenc "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of FlightData in Flight.proto.
const (
	fieldDataHeader  = 2
	fieldAppMetadata = 3
	fieldDataBody    = 1000
)

// copyBelow is the length under which a piece of a body is copied rather than referenced: gRPC does not count references
// of such small buffers, and a piece costs more to handle than to copy.
const copyBelow = 4 << 10

// frame is one FlightData message whose body is still in the buffers of a record batch. Body pieces longer than
// copyBelow belong to owner, which gRPC holds until they are on the wire.
type frame struct {
	header, metadata []byte
	body             [][]byte
	owner            *owner
}

// bodyLen returns the length of the body.
func (f *frame) bodyLen() int {
	n := 0
	for _, p := range f.body {
		n += len(p)
	}
	return n
}

// owner releases what a frame borrows when the last piece is written. It is the pool that gRPC gives buffers back to.
type owner struct {
	refs    atomic.Int32
	release func()
}

func newOwner(release func()) *owner {
	o := &owner{release: release}
	o.refs.Store(1)
	return o
}

// Get is never called: the pool only takes buffers back.
func (o *owner) Get(int) *[]byte { panic("flight: a frame's owner gives no buffers") }

// Put counts one piece as written.
func (o *owner) Put(*[]byte) { o.drop() }

func (o *owner) drop() {
	if o.refs.Add(-1) == 0 {
		o.release()
	}
}

// codec is gRPC's protobuf codec, except that a *frame goes out without a copy of its body.
type codec struct {
	encoding.CodecV2
}

func newCodec() codec { return codec{encoding.GetCodecV2(protoenc.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return f.marshal(), nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(*frame); ok {
		return errors.New("flight: frames are only sent")
	}
	return c.CodecV2.Unmarshal(data, v)
}

// marshal writes the message's fields. Small pieces are gathered with what precedes them.
func (f *frame) marshal() mem.BufferSlice {
	small := make([]byte, 0, 64+len(f.header)+len(f.metadata)+copyBelow)
	small = protowire.AppendTag(small, fieldDataHeader, protowire.BytesType)
	small = protowire.AppendBytes(small, f.header)
	if len(f.metadata) > 0 {
		small = protowire.AppendTag(small, fieldAppMetadata, protowire.BytesType)
		small = protowire.AppendBytes(small, f.metadata)
	}
	small = protowire.AppendTag(small, fieldDataBody, protowire.BytesType)
	small = protowire.AppendVarint(small, uint64(f.bodyLen()))

	out := make(mem.BufferSlice, 0, 1+2*len(f.body))
	for i := range f.body {
		if len(f.body[i]) < copyBelow {
			small = append(small, f.body[i]...)
			continue
		}
		if len(small) > 0 {
			out = append(out, mem.SliceBuffer(small))
			small = nil
		}
		f.owner.refs.Add(1)
		out = append(out, mem.NewBuffer(&f.body[i], f.owner))
	}
	if len(small) > 0 {
		out = append(out, mem.SliceBuffer(small))
	}
	return out
}
