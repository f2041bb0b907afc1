package wire

import "strings"

// Image is a named image.
type Image struct {
	Ticks        int64 // absolute
	Name, Format string
	Data         []byte
}

// Images calls fn for each image of b in order, with its index in the block. The image is reused and its Data valid only during the call;
// its texts may be kept. Events that are not images are skipped and counted. The error is fn's, or a *CorruptError.
func (d *Decoder) Images(b *BlockBody, fn func(index int, i *Image) error) (Counts, error) {
	defer d.end()
	buf, err := d.begin(b, modeSpans)
	if err != nil {
		return Counts{}, err
	}
	var image Image
	index := 0
	for p := 0; p < len(buf); index++ {
		at := p
		i := int(buf[p])
		if i >= len(d.evPlans) {
			return Counts{}, corruptObject(b, at, errTypeIndex)
		}
		pl := &d.evPlans[i]
		body, next, err := instance(buf, p+1, pl.size)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		p = next
		row, err := d.image(pl, body, &image)
		if err != nil {
			return Counts{}, corruptObject(b, at, err)
		}
		if !row {
			d.counts.Unknown++
			continue
		}
		d.counts.Rows++
		if err := fn(index, &image); err != nil {
			return Counts{}, err
		}
	}
	return d.counts, nil
}

// image makes the image of an event; row is false when it is none.
func (d *Decoder) image(pl *eventPlan, body []byte, dst *Image) (row bool, err error) {
	if pl.reader != readerImage {
		return false, d.checkOther(pl, body)
	}
	if err := d.read(pl, body); err != nil {
		return false, err
	}
	dst.Ticks, dst.Name, dst.Format, dst.Data = d.ev.time, d.ownName(d.ev.msg), d.ownName(d.ev.format), d.ev.blob
	return true, nil
}

// ownName returns a string of an event cleaned as a name, in memory of its own.
func (d *Decoder) ownName(s codedString) string {
	const most = (MaxNameChars + 1) * 4 // bytes of the characters that count and of one more; no encoding takes more
	if len(s.data) > most {
		s.data = s.data[:most]
	}
	d.scratch = s.append(d.scratch[:0])
	name, cut, nuls := CleanName(alias(d.scratch))
	d.tally(cut, nuls)
	return strings.Clone(name)
}
