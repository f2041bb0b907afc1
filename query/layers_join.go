package query

import (
	"slices"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// add puts a layer of the rows with the given ids on top. It swallows the ones below that are not much longer, so lengths fall from layer to
// layer, as the digits of a counter.
func (l *layers) add(ids []telemetry.ID) error {
	top, err := l.fetch(ids)
	if err != nil {
		return err
	}
	if top.rows == 0 {
		top.file.release()
		return nil
	}
	swallowed := l.swallow(top.rows)
	if len(swallowed) > 0 {
		joined, err := l.joined(append(slices.Clone(swallowed), top))
		top.file.release()
		if err != nil {
			return err
		}
		top = joined
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replace(len(l.list)-len(swallowed), len(l.list), top)
	l.beginJoin()
	return nil
}

// swallow returns the topmost layers that a new one is joined with at once.
func (l *layers) swallow(rows int64) []layer {
	l.mu.Lock()
	defer l.mu.Unlock()
	floor := 0
	if l.join != nil {
		floor = l.join.to
	}
	keep := len(l.list)
	for keep > floor && l.list[keep-1].rows <= l.bounds.inline && l.fits(l.list[keep-1].rows, rows) {
		keep--
		rows += l.list[keep].rows
	}
	return l.list[keep:]
}

// fits reports whether a layer of so many rows is to be joined with those above it.
func (l *layers) fits(rows, above int64) bool {
	return rows <= l.bounds.small || rows <= l.bounds.ratio*above
}

// join writes long layers as one while queries go on.
type join struct {
	from, to int // of the layers' list: what is below to stays as it is meanwhile
	layers   []layer
}

// beginJoin starts a join when one is due and none is under way. The lock must be held.
func (l *layers) beginJoin() {
	if l.join != nil || l.closed {
		return
	}
	to := len(l.list)
	from, rows := to-1, l.list[to-1].rows
	for from > 0 && l.fits(l.list[from-1].rows, rows) {
		from--
		rows += l.list[from].rows
	}
	if to-from < 2 {
		return
	}
	j := &join{from, to, slices.Clone(l.list[from:to])}
	for _, g := range j.layers {
		g.file.retain()
	}
	l.join = j
	l.work.Go(func() { l.runJoin(j) })
}

func (l *layers) runJoin(j *join) {
	all, err := l.joined(j.layers)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range j.layers {
		g.file.release()
	}
	l.join = nil
	if err != nil {
		if l.ctx.Err() == nil { // the next change begins it anew
			l.log.Warn("layers not joined", "table", l.table.Name, "error", err)
		}
		return
	}
	if len(l.list) < j.to || !slices.Equal(l.list[j.from:j.to], j.layers) { // all rows were read anew meanwhile
		all.file.release()
		return
	}
	l.replace(j.from, j.to, all)
}

// joined writes layers, the lowest first, as one.
func (l *layers) joined(list []layer) (layer, error) {
	m := merger{page: l.bounds.page}
	defer m.close()
	for _, g := range slices.Backward(list) {
		if err := m.open(l.ctx, g.file.path); err != nil {
			return layer{}, err
		}
	}
	return l.write(func(w *parquetWriter) (more bool, err error) {
		return false, m.run(l.ctx, w)
	})
}
