package query

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// snapshots keep Parquet files of what only the catalog knows, so that the engine never reaches the catalog.
//
// processes and streams are written anew when archive moved: their rows change with each block. blocks only grow; see
// blockSegments. list_partitions follows the commit number.
type snapshots struct {
	catalog Catalog
	folder  *cacheFolder

	processes, streams snapshot
	blocks             *blockSegments
	partitions         snapshot
}

// snapshot is one file that stands for a state of the catalog.
type snapshot struct {
	mu        sync.Mutex
	begun     time.Time                  // when it was begun to be read: it is as new as every call before
	positions map[catalog.ShardID]uint64 // of archive, when it was made
	commitNo  int64                      // of partitions
	file      *cachedFile
}

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

func newSnapshots(c Catalog, folder *cacheFolder) *snapshots {
	return &snapshots{catalog: c, folder: folder, blocks: newBlockSegments(c, folder)}
}

// takeProcesses returns a file of table processes that is as new as the call. The caller must release it.
func (s *snapshots) takeProcesses(ctx context.Context) (*cachedFile, error) {
	return s.refresh(ctx, &s.processes, "processes", func() (arrow.RecordBatch, error) {
		rows, err := s.catalog.Processes(ctx, nil)
		return processBatch(rows), err
	})
}

// takeStreams is takeProcesses for table streams.
func (s *snapshots) takeStreams(ctx context.Context) (*cachedFile, error) {
	return s.refresh(ctx, &s.streams, "streams", func() (arrow.RecordBatch, error) {
		rows, err := s.catalog.Streams(ctx, nil)
		return streamBatch(rows), err
	})
}

// refresh writes a snapshot anew unless archive stands where it stood. Calls that wait for one another share the next one:
// where many processes are registered a snapshot takes a while, and archive has moved meanwhile.
func (s *snapshots) refresh(ctx context.Context, snap *snapshot, name string, load func() (arrow.RecordBatch, error)) (*cachedFile, error) {
	called := time.Now()
	snap.mu.Lock()
	defer snap.mu.Unlock()
	if snap.file != nil && snap.begun.After(called) {
		return snap.take(), nil
	}
	begun := time.Now()
	positions, err := s.catalog.ArchivePositions(ctx) // before the rows: they may be newer, never older
	if err != nil {
		return nil, fmt.Errorf("read archive positions: %w", err)
	}
	if snap.file != nil && maps.Equal(positions, snap.positions) {
		snap.begun = begun
		return snap.take(), nil
	}
	batch, err := load()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer batch.Release()
	file, err := s.folder.write(name, batch)
	if err != nil {
		return nil, err
	}
	snap.replace(file)
	snap.begun, snap.positions = begun, positions
	return snap.take(), nil
}

// takePartitions returns a file of the rows of list_partitions at a commit number. The caller must release it.
func (s *snapshots) takePartitions(live *partitions) (*cachedFile, error) {
	snap := &s.partitions
	snap.mu.Lock()
	defer snap.mu.Unlock()
	if snap.file != nil && snap.commitNo == live.commitNo {
		return snap.take(), nil
	}
	batch := partitionBatch(live.all())
	defer batch.Release()
	file, err := s.folder.write("partitions", batch)
	if err != nil {
		return nil, err
	}
	snap.replace(file)
	snap.commitNo = live.commitNo
	return snap.take(), nil
}

// close removes the files.
func (s *snapshots) close() {
	for _, snap := range []*snapshot{&s.processes, &s.streams, &s.partitions} {
		snap.mu.Lock()
		snap.replace(nil)
		snap.mu.Unlock()
	}
	s.blocks.close()
}

// processBatch makes the rows of table processes: a row for each registered process, also for one that sent no block
// yet, which was last heard of when it registered.
func processBatch(rows []catalog.ProcessRow) arrow.RecordBatch {
	c := newColumnBuilder(tables.Must("processes").FileSchema(), len(rows))
	for i := range rows {
		p := &rows[i]
		if p.Registered == 0 {
			continue
		}
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
func streamBatch(rows []catalog.StreamRow) arrow.RecordBatch {
	c := newColumnBuilder(tables.Must("streams").FileSchema(), len(rows))
	for i := range rows {
		s := &rows[i]
		if s.Registered == 0 {
			continue
		}
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
	}
	return c.batch()
}
