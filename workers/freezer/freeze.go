package freezer

import (
	"context"
	"iter"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
)

// step names the moments of a freeze between which a process may die.
type step string

// The steps, in order.
const (
	stepPut       step = "put"       // about to put a file
	stepCommit    step = "commit"    // all files are durable, about to commit
	stepCommitted step = "committed" // the commit stands, nothing is swept
)

// freezeUnit moves a unit's rows into files, together with those of the files to merge, and returns the new version.
func (f *Freezer) freezeUnit(ctx context.Context, u *unit, upTo map[catalog.ShardID]uint64, version int64, merge []catalog.FrozenFile) (int64, error) {
	begun := time.Now()
	c := &catalog.FreezeCommit{
		FreezeSpan: catalog.FreezeSpan{From: u.from, To: u.to, UpTo: upTo}, Version: version, ObjectsSince: begun.UnixNano(),
	}
	moved := int64(0)
	sources := []iter.Seq2[catalog.BlockRow, error]{counted(f.cat.FreezableBlocks(ctx, c.FreezeSpan), &moved)}
	for i := range merge {
		sources = append(sources, f.reader.Rows(ctx, &merge[i]))
		c.Retired = append(c.Retired, merge[i].PartNo)
	}
	var err error
	if c.Added, err = f.write(ctx, u, merged(sources)); err != nil || moved == 0 {
		return version, err
	}
	c.Moved = moved
	if err := f.hook(stepCommit); err != nil {
		return version, err
	}
	if version, err = f.cat.CommitFreeze(ctx, c); err != nil {
		return version, err
	}
	bytes := int64(0)
	for i := range c.Added {
		bytes += c.Added[i].Size
	}
	f.count(func(s *Stats) {
		s.Freezes++
		s.Rows += moved
		s.Files += int64(len(c.Added))
		s.Bytes += bytes
		s.Merged += int64(len(merge))
	})
	f.log.Info("blocks frozen", "unit", u.String(), "rows", moved, "files", len(c.Added), "merged", len(merge), "bytes", bytes, "took", time.Since(begun))
	return version, f.hook(stepCommitted)
}

// counted counts the rows that pass.
func counted(rows iter.Seq2[catalog.BlockRow, error], n *int64) iter.Seq2[catalog.BlockRow, error] {
	return func(yield func(catalog.BlockRow, error) bool) {
		for b, err := range rows {
			if err == nil {
				*n++
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// write puts rows into files of FileRows.
func (f *Freezer) write(ctx context.Context, u *unit, rows iter.Seq2[catalog.BlockRow, error]) (files []catalog.FrozenFile, err error) {
	w, err := frozen.NewWriter()
	if err != nil {
		return nil, err
	}
	for b, err := range rows {
		if err != nil {
			return nil, err
		}
		if w.Rows() == f.cfg.FileRows {
			if files, err = f.put(ctx, u, w, files); err != nil {
				return nil, err
			}
			if w, err = frozen.NewWriter(); err != nil {
				return nil, err
			}
		}
		if err := w.Append(b); err != nil {
			return nil, err
		}
	}
	if w.Rows() > 0 {
		return f.put(ctx, u, w, files)
	}
	return files, nil
}

// put finishes a file and puts it.
func (f *Freezer) put(ctx context.Context, u *unit, w *frozen.Writer, files []catalog.FrozenFile) ([]catalog.FrozenFile, error) {
	if err := f.hook(stepPut); err != nil {
		return nil, err
	}
	file, err := w.Finish()
	if err != nil {
		return nil, err
	}
	row := file.Row
	row.View, row.Level, row.Bucket, row.Key = catalog.FrozenView, u.level, u.bucket, lake.ViewKey(catalog.FrozenView, u.bucket, file.Data)
	if err := f.objects.Put(ctx, row.Key, file.Data); err != nil {
		return nil, err
	}
	return append(files, row), nil
}

// source is one of the streams that are merged, and its next row.
type source struct {
	next func() (catalog.BlockRow, error, bool)
	head catalog.BlockRow
}

// merged yields the rows of all sources in order of their keys. Each source is in order.
func merged(all []iter.Seq2[catalog.BlockRow, error]) iter.Seq2[catalog.BlockRow, error] {
	if len(all) == 1 {
		return all[0]
	}
	return func(yield func(catalog.BlockRow, error) bool) {
		var live []*source
		for _, rows := range all {
			next, stop := iter.Pull2(rows)
			defer stop()
			s := &source{next: next}
			more, err := s.advance()
			if err != nil {
				yield(catalog.BlockRow{}, err)
				return
			}
			if more {
				live = append(live, s)
			}
		}
		for len(live) > 0 {
			least := 0
			for i := range live {
				if live[i].head.BlockKey().Compare(live[least].head.BlockKey()) < 0 {
					least = i
				}
			}
			if !yield(live[least].head, nil) {
				return
			}
			more, err := live[least].advance()
			if err != nil {
				yield(catalog.BlockRow{}, err)
				return
			}
			if !more {
				live = append(live[:least], live[least+1:]...)
			}
		}
	}
}

// advance takes the next row, and reports whether there is one.
func (s *source) advance() (more bool, err error) {
	b, err, more := s.next()
	s.head = b
	return more, err
}
