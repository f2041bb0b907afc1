package wire

import (
	"errors"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

var errSoon = errors.New("wire: not yet")


type Limits struct{ MaxBuffer int }

var DefaultLimits = Limits{MaxBuffer: 256 << 20}

type Counts struct{ Rows, Unknown, Cut, NULs int }

type CorruptError struct {
	Block  telemetry.ID
	Reason string
}

func (e *CorruptError) Error() string {
	return "block " + e.Block.String() + " is corrupt: " + e.Reason
}

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
