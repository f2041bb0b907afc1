package netspans

import (
	"encoding/json"
	"fmt"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// carry is what a partition leaves to the next one: the chains in which something is open. Times are ticks, so that they do not depend on
// an estimate of the clock.
type carry struct {
	Streams []stream `json:"streams"`
}

// stream is the chain of a stream.
type stream struct {
	ID   string `json:"id"`
	End  int64  `json:"end"` // relative ticks
	Open []open `json:"open"`
}

// open is an open span, outermost first.
type open struct {
	ID       int64  `json:"id"`
	Kind     kind   `json:"kind"`
	Name     string `json:"name"`
	Outgoing bool   `json:"out,omitempty"`
	Parent   int64  `json:"parent"`
	Depth    uint32 `json:"depth,omitempty"`
	Ticks    int64  `json:"ticks"`
	Used     int64  `json:"used,omitempty"`
}

// enter takes over what the partition before left.
func (b *builder) enter(left []byte) error {
	if left == nil {
		return nil
	}
	var from carry
	if err := json.Unmarshal(left, &from); err != nil {
		return fmt.Errorf("what the partition before left: %w", err)
	}
	for i := range from.Streams {
		id, err := telemetry.ParseID(from.Streams[i].ID)
		if err != nil {
			return fmt.Errorf("stream that the partition before left: %w", err)
		}
		c := &chain{id: id, endTicks: from.Streams[i].End}
		for _, o := range from.Streams[i].Open {
			if o.Kind >= kinds {
				return fmt.Errorf("span that the partition before left: kind %d", o.Kind)
			}
			s := span{
				id: o.ID, parent: o.Parent, ticks: o.Ticks, used: o.Used, depth: o.Depth, kind: o.Kind, outgoing: o.Outgoing,
				name: b.rows.Columns[columnName].Dict.Intern(o.Name),
			}
			if o.Kind == kindConnection {
				s.connection = b.rows.Columns[columnConnectionName].Dict.Intern(o.Name)
			}
			if err := b.push(c, &s); err != nil {
				return fmt.Errorf("what the partition before left: %w", err)
			}
		}
		b.chains[id] = c
	}
	return nil
}

// leave returns what is open; nil when nothing is.
func (b *builder) leave() ([]byte, error) {
	var to carry
	for _, c := range b.sorted() {
		s := stream{ID: c.id.String(), End: c.endTicks}
		for i := range c.stack {
			o := &c.stack[i]
			s.Open = append(s.Open, open{
				ID: o.id, Kind: o.kind, Name: string(b.rows.Columns[columnName].Dict.Value(o.name)), Outgoing: o.outgoing, Parent: o.parent,
				Depth: o.depth, Ticks: o.ticks, Used: o.used,
			})
		}
		to.Streams = append(to.Streams, s)
	}
	if to.Streams == nil {
		return nil, nil
	}
	return json.Marshal(&to)
}
