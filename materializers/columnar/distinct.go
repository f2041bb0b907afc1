package columnar

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// maxTextDictBytes is the largest dictionary of a column whose values need not repeat. Readers hold it whole.
const maxTextDictBytes = 4 << 20

// distinct finds equal values among values that were appended without looking for them.
type distinct struct {
	slots  []slot
	values []int32 // first id of each distinct value
	number []int32 // by position in the ids given: number of its value in values
}

type slot struct {
	hash  uint32
	value int32 // number in values + 1; 0 = free
}

// find numbers the values of ids, which are different ids of c's dictionary. It returns false, early, when more than limit values
// or maxTextDictBytes are distinct: then a dictionary does not pay.
func (d *distinct) find(c *Column, ids []int32, limit int) bool {
	size := 16
	for size < 2*limit {
		size *= 2
	}
	if len(d.slots) < size {
		d.slots = make([]slot, size)
	}
	slots := d.slots[:size]
	clear(slots)
	d.values, d.number = d.values[:0], d.number[:0]
	total := 0
	for _, id := range ids {
		v := c.Dict.Value(id)
		h := xxhash.Sum64(v)
		at := int(h) & (size - 1)
		tag := uint32(h >> 32)
		for slots[at].value != 0 && (slots[at].hash != tag || !bytes.Equal(c.Dict.Value(d.values[slots[at].value-1]), v)) {
			at = (at + 1) & (size - 1)
		}
		if slots[at].value == 0 {
			total += len(v)
			if len(d.values) >= limit || total > maxTextDictBytes {
				return false
			}
			d.values = append(d.values, id)
			slots[at] = slot{tag, int32(len(d.values))}
		}
		d.number = append(d.number, slots[at].value-1)
	}
	return true
}
