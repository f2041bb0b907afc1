package wire

import (
	"errors"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var errSoon = errors.New("wire: not yet")

// BlockBody is a decoded insert_block body. Dependencies and Objects are the compressed buffers of the payload; they alias the body
// unless they had to be put together from pieces.
type BlockBody struct {
	telemetry.Block
	Dependencies []byte
	Objects      []byte
}

func DecodeProcess(body []byte) (telemetry.Process, error)            { return telemetry.Process{}, errSoon }
func DecodeStream(body []byte) (telemetry.Stream, error)              { return telemetry.Stream{}, errSoon }
func DecodeBlock(body []byte) (BlockBody, error)                      { return BlockBody{}, errSoon }
func DecodeBlockEnvelope(body []byte) (telemetry.Block, int, error)   { return telemetry.Block{}, 0, errSoon }
func AppendProcess(dst []byte, p *telemetry.Process) []byte           { return dst }
func AppendStream(dst []byte, s *telemetry.Stream) []byte             { return dst }
func AppendBlock(dst []byte, b *telemetry.Block, deps, objs []byte) []byte { return dst }
func AppendPayload(dst, deps, objs []byte) []byte                     { return dst }
func PayloadSize(nDeps, nObjs int) int                                { return 0 }
func AppendTypes(dst []byte, types []telemetry.Type) []byte           { return dst }
func DecodeTypes(data []byte) ([]telemetry.Type, error)               { return nil, errSoon }
func Compress(dst, src []byte) []byte                                 { return dst }

type Limits struct{ MaxBuffer int }

var DefaultLimits = Limits{MaxBuffer: 256 << 20}

type Counts struct{ Rows, Unknown, Cut, NULs int }

type CorruptError struct {
	Block  telemetry.ID
	Reason string
}

func (e *CorruptError) Error() string { return "block " + e.Block.String() + " is corrupt: " + e.Reason }

type Object struct{ Type string }

type Decoder struct{}

func NewDecoder(deps, objs []telemetry.Type, limits Limits) (*Decoder, error) { return nil, errSoon }
func (d *Decoder) Logs(b *BlockBody, fn func(*telemetry.LogEntry) error) (Counts, error) {
	return Counts{}, errSoon
}
func (d *Decoder) Measures(b *BlockBody, c telemetry.Clock, fn func(*telemetry.Measure) error) (Counts, error) {
	return Counts{}, errSoon
}
func (d *Decoder) Objects(b *BlockBody, fn func(index int, o *Object) error) (Counts, error) {
	return Counts{}, errSoon
}
func LogTypes() (deps, objs []telemetry.Type)     { return nil, nil }
func MetricsTypes() (deps, objs []telemetry.Type) { return nil, nil }
func CPUTypes() (deps, objs []telemetry.Type)     { return nil, nil }
func ImageTypes() (deps, objs []telemetry.Type)   { return nil, nil }
func NetTypes() (deps, objs []telemetry.Type)     { return nil, nil }
