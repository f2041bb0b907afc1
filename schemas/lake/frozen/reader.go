package frozen

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Objects is the part of the lake that a Reader needs.
type Objects interface {
	// GetRange must return n bytes from off, all of them or none.
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)
}

// Sizes of a Reader's caches.
const (
	// footerCache is how many footers are kept, some 100 kB each.
	footerCache = 128
	// keyCache is how many row groups' keys are kept, 2.6 MB each.
	keyCache = 24
)

// Reader answers from frozen files, reading the row groups that may hold what is asked for, and of these only the columns that
// are needed: a look-up in a cold file is two reads, one in a warm one is none. It is safe for concurrent use.
type Reader struct {
	objects Objects
	footers lru[string, *footer]
	keys    lru[groupID, []catalog.BlockKey]
}

// groupID names a row group.
type groupID struct {
	key   string
	group int
}

// NewReader returns a Reader of a lake's objects.
func NewReader(o Objects) *Reader {
	return &Reader{objects: o, footers: newLRU[string, *footer](footerCache), keys: newLRU[groupID, []catalog.BlockKey](keyCache)}
}

// Lookup tells for each key, in order, whether one of the files holds its block.
func (r *Reader) Lookup(ctx context.Context, files []catalog.FrozenFile, keys []catalog.BlockKey) ([]bool, error) {
	found := make([]bool, len(keys))
	order := make([]int, len(keys)) // of the keys, so that each row group is visited once
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].Compare(keys[b]) })
	for i := range files {
		f := &files[i]
		ask := slices.DeleteFunc(slices.Clone(order), func(k int) bool { return found[k] || !mayHold(f, &keys[k]) })
		if len(ask) == 0 {
			continue
		}
		if err := r.lookup(ctx, f, keys, ask, found); err != nil {
			return nil, fmt.Errorf("look up %d blocks: %w", len(ask), err)
		}
	}
	return found, nil
}

// mayHold reports whether a file may hold a block, by what the catalog says.
func mayHold(f *catalog.FrozenFile, k *catalog.BlockKey) bool {
	return k.BeginTime >= f.MinTime && k.BeginTime <= f.MaxBegin && k.StreamID.Compare(f.FirstStream) >= 0 && k.StreamID.Compare(f.LastStream) <= 0
}

// lookup looks for the keys named in ask, which are in order.
func (r *Reader) lookup(ctx context.Context, f *catalog.FrozenFile, keys []catalog.BlockKey, ask []int, found []bool) error {
	ft, err := r.footer(ctx, f)
	if err != nil {
		return err
	}
	for g := range ft.groups {
		group := &ft.groups[g]
		for len(ask) > 0 && keys[ask[0]].Compare(group.first) < 0 {
			ask = ask[1:] // it would lie before this group and after the last one
		}
		var held []catalog.BlockKey
		for ; len(ask) > 0 && keys[ask[0]].Compare(group.last) <= 0; ask = ask[1:] {
			k := keys[ask[0]]
			if k.BeginTime < group.minBegin || k.BeginTime > group.maxBegin {
				continue
			}
			if held == nil {
				if held, err = r.groupKeys(ctx, ft, g); err != nil {
					return err
				}
			}
			_, found[ask[0]] = slices.BinarySearchFunc(held, k, catalog.BlockKey.Compare)
		}
	}
	return nil
}

// Blocks returns the blocks of a stream that were under way in [begin, end], both included, in order of begin time.
func (r *Reader) Blocks(ctx context.Context, files []catalog.FrozenFile, stream telemetry.ID, begin, end int64) ([]catalog.BlockRow, error) {
	var all []catalog.BlockRow
	for i := range files {
		f := &files[i]
		if f.MinTime > end || f.MaxEnd < begin || stream.Compare(f.FirstStream) < 0 || stream.Compare(f.LastStream) > 0 {
			continue
		}
		var err error
		if all, err = r.blocks(ctx, f, all, stream, begin, end); err != nil {
			return nil, fmt.Errorf("frozen blocks of stream %s: %w", stream, err)
		}
	}
	slices.SortFunc(all, func(a, b catalog.BlockRow) int {
		return cmp.Or(cmp.Compare(a.BeginTime, b.BeginTime), a.ID.Compare(b.ID))
	})
	return all, nil
}

func (r *Reader) blocks(ctx context.Context, f *catalog.FrozenFile, all []catalog.BlockRow, stream telemetry.ID, begin, end int64) ([]catalog.BlockRow, error) {
	ft, err := r.footer(ctx, f)
	if err != nil {
		return nil, err
	}
	for g := range ft.groups {
		group := &ft.groups[g]
		if stream.Compare(group.first.StreamID) < 0 || stream.Compare(group.last.StreamID) > 0 || group.minBegin > end || group.maxEnd < begin {
			continue
		}
		rows, err := r.groupRows(ctx, ft, g, func(k []catalog.BlockKey) (from, to int) {
			from, _ = slices.BinarySearchFunc(k, stream, func(k catalog.BlockKey, s telemetry.ID) int { return k.StreamID.Compare(s) })
			to = from
			for to < len(k) && k[to].StreamID == stream && k[to].BeginTime <= end {
				to++
			}
			return from, to
		})
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if max(rows[i].EndTime, rows[i].BeginTime) >= begin {
				all = append(all, rows[i])
			}
		}
	}
	return all, nil
}

// Rows yields all rows of a file in order, reading a row group at a time. After an error it ends.
func (r *Reader) Rows(ctx context.Context, f *catalog.FrozenFile) iter.Seq2[catalog.BlockRow, error] {
	return func(yield func(catalog.BlockRow, error) bool) {
		ft, err := r.footer(ctx, f)
		if err != nil {
			yield(catalog.BlockRow{}, err)
			return
		}
		for g := range ft.groups {
			rows, err := r.groupRows(ctx, ft, g, func(k []catalog.BlockKey) (int, int) { return 0, len(k) })
			if err != nil {
				yield(catalog.BlockRow{}, err)
				return
			}
			for i := range rows {
				if !yield(rows[i], nil) {
					return
				}
			}
		}
	}
}

// footer returns the footer of a file, which is read once.
func (r *Reader) footer(ctx context.Context, f *catalog.FrozenFile) (*footer, error) {
	if ft, ok := r.footers.get(f.Key); ok {
		return ft, nil
	}
	if f.SchemaVer != Version {
		return nil, fmt.Errorf("frozen file %s has version %d, this program knows %d: start the newer program", f.Key, f.SchemaVer, Version)
	}
	tail, err := r.objects.GetRange(ctx, f.Key, f.Size-f.TailSize, f.TailSize)
	if err != nil {
		return nil, fmt.Errorf("footer of a frozen file: %w", err)
	}
	ft, err := parseFooter(f, tail)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, f.Key, err)
	}
	r.footers.put(f.Key, ft)
	return ft, nil
}

// groupKeys returns the keys of a row group, in order. They are shared: nobody may change them.
func (r *Reader) groupKeys(ctx context.Context, ft *footer, g int) ([]catalog.BlockKey, error) {
	id := groupID{ft.key, g}
	if keys, ok := r.keys.get(id); ok {
		return keys, nil
	}
	c, err := r.chunks(ctx, ft, g, 0, numKeyColumns)
	if err != nil {
		return nil, err
	}
	keys, err := c.keys()
	if err != nil {
		return nil, fmt.Errorf("%w: %s, row group %d: %w", ErrDamaged, ft.key, g, err)
	}
	r.keys.put(id, keys)
	return keys, nil
}

// groupRows returns the rows of a row group that choose, given its keys, names.
func (r *Reader) groupRows(ctx context.Context, ft *footer, g int, choose func([]catalog.BlockKey) (from, to int)) ([]catalog.BlockRow, error) {
	c, err := r.chunks(ctx, ft, g, 0, numColumns)
	if err != nil {
		return nil, err
	}
	rows, err := c.rows(choose)
	if err != nil {
		return nil, fmt.Errorf("%w: %s, row group %d: %w", ErrDamaged, ft.key, g, err)
	}
	return rows, nil
}

// chunks reads the columns [from, to) of a row group, which lie side by side, and checks them.
func (r *Reader) chunks(ctx context.Context, ft *footer, g, from, to int) (*chunks, error) {
	group := &ft.groups[g]
	begin, end := group.begin[from], group.end[to-1]
	data, err := r.objects.GetRange(ctx, ft.key, begin, end-begin)
	if err != nil {
		return nil, fmt.Errorf("row group %d of a frozen file: %w", g, err)
	}
	c := &chunks{footer: ft, group: g, data: data, base: begin}
	if err := c.check(from, to); err != nil {
		return nil, fmt.Errorf("%w: %s, row group %d: %w", ErrDamaged, ft.key, g, err)
	}
	return c, nil
}
