package query

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// snapshots keep Parquet files of what only the catalog knows, so that the engine never reaches the catalog.
//
// Rows of processes and streams change with each block; see layers. blocks come and are frozen; see blockSegments.
// list_partitions follows the commit number.
type snapshots struct {
	folder *cacheFolder

	processes, streams *layers
	blocks             *blockSegments
	partitions         snapshot
}

// snapshot is one file that stands for the partitions at a commit number.
type snapshot struct {
	mu       sync.Mutex
	commitNo int64
	file     *cachedFile

	instances bool // some row is of an instance
}

// maxInstancePartitions bounds the partitions of instances that list_partitions lists: those that were built first.
const maxInstancePartitions = 1 << 20

// take returns the file with a reference for the caller. The lock must be held.
func (s *snapshot) take() *cachedFile {
	s.file.retain()
	return s.file
}

// replace puts a new file in place. The lock must be held.
func (s *snapshot) replace(f *cachedFile) {
	if s.file != nil {
		s.file.release()
	}
	s.file = f
}

func newSnapshots(c Catalog, index *partitionIndex, folder *cacheFolder, log *slog.Logger) *snapshots {
	return &snapshots{
		folder: folder, blocks: newBlockSegments(c, index, folder),
		processes: newLayers(tables.Must("processes"), folder, processSource(c), log),
		streams:   newLayers(tables.Must("streams"), folder, streamSource(c), log),
	}
}

// processSource is where the rows of table processes come from.
func processSource(c Catalog) layerSource {
	schema := layerSchema(tables.Must("processes"))
	return layerSource{
		positions: c.ArchivePositions,
		changed:   c.ChangedProcesses,
		rows: func(ctx context.Context, ids []telemetry.ID) (arrow.RecordBatch, error) {
			rows, err := c.Processes(ctx, ids)
			return processBatch(schema, rows), err
		},
		page: func(ctx context.Context, no int64, limit int) (arrow.RecordBatch, int64, error) {
			rows, err := c.ProcessesAfter(ctx, no, limit)
			if n := len(rows); n > 0 {
				no = rows[n-1].No
			}
			return processBatch(schema, rows), no, err
		},
	}
}

// streamSource is where the rows of table streams come from.
func streamSource(c Catalog) layerSource {
	schema := layerSchema(tables.Must("streams"))
	return layerSource{
		positions: c.ArchivePositions,
		changed:   c.ChangedStreams,
		rows: func(ctx context.Context, ids []telemetry.ID) (arrow.RecordBatch, error) {
			rows, err := c.Streams(ctx, ids)
			return streamBatch(schema, rows), err
		},
		page: func(ctx context.Context, no int64, limit int) (arrow.RecordBatch, int64, error) {
			rows, err := c.StreamsAfter(ctx, no, limit)
			if n := len(rows); n > 0 {
				no = rows[n-1].No
			}
			return streamBatch(schema, rows), no, err
		},
	}
}

// takePartitions returns a file of the rows of list_partitions at a commit number or later, and whether any is of an instance. The caller
// must release it.
func (s *snapshots) takePartitions(ctx context.Context, c Catalog, live *partitions) (f *cachedFile, instances bool, err error) {
	snap := &s.partitions
	snap.mu.Lock()
	defer snap.mu.Unlock()
	if snap.file != nil && snap.commitNo == live.commitNo {
		return snap.take(), snap.instances, nil
	}
	list, err := c.AllInstancePartitions(ctx, maxInstancePartitions)
	if err != nil {
		return nil, false, fmt.Errorf("read partitions of instances: %w", err)
	}
	batch := partitionBatch(live.all(), list)
	defer batch.Release()
	file, err := s.folder.write("partitions", batch)
	if err != nil {
		return nil, false, err
	}
	snap.replace(file)
	snap.commitNo, snap.instances = live.commitNo, len(list) > 0
	return snap.take(), snap.instances, nil
}

// close removes the files.
func (s *snapshots) close() {
	s.partitions.mu.Lock()
	s.partitions.replace(nil)
	s.partitions.mu.Unlock()
	s.processes.close()
	s.streams.close()
	s.blocks.close()
}

// processBatch makes the rows of table processes: a row for each registered process, also for one that sent no block
// yet, which was last heard of when it registered.
func processBatch(schema *arrow.Schema, rows []catalog.ProcessRow) arrow.RecordBatch {
	c := newColumnBuilder(schema, len(rows))
	for i := range rows {
		p := &rows[i]
		if p.Registered == 0 {
			continue
		}
		c.int64(p.No)
		c.text(p.ID.String())
		c.text(p.Exe)
		c.text(p.Username)
		c.text(p.Realname)
		c.text(p.Computer)
		c.text(p.Distro)
		c.text(p.CPUBrand)
		c.int64(p.TSCFrequency)
		c.time(p.StartTime)
		c.int64(p.StartTicks)
		c.time(p.Registered)
		c.text(parentText(p.ParentID))
		c.text(telemetry.PropertiesJSON(p.Properties))
		if p.HasBlocks {
			c.time(p.LastInsert)
			c.int64(p.LastTicks)
			c.time(p.LastTime)
		} else {
			c.time(p.Registered)
			c.null()
			c.null()
		}
	}
	return c.batch()
}

// parentText writes no parent as no text, as clients expect.
func parentText(id telemetry.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// streamBatch makes the rows of table streams.
func streamBatch(schema *arrow.Schema, rows []catalog.StreamRow) arrow.RecordBatch {
	c := newColumnBuilder(schema, len(rows))
	for i := range rows {
		s := &rows[i]
		if s.Registered == 0 {
			continue
		}
		c.int64(s.No)
		c.text(s.ID.String())
		c.text(s.ProcessID.String())
		c.bytes(s.DependenciesCBOR)
		c.bytes(s.ObjectsCBOR)
		c.texts(s.Tags)
		c.text(telemetry.PropertiesJSON(s.Properties))
		c.time(s.Registered)
		c.text(s.Format)
		if s.HasBlocks {
			c.time(s.LastInsert)
		} else {
			c.time(s.Registered)
		}
		c.thread(s)
	}
	return c.batch()
}
