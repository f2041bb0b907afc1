package justintime

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// instanceRow is an Instance with what the catalog knows of it.
type instanceRow struct {
	Instance
	no      int64 // its number in the catalog
	process catalog.ProcessRow
	streams map[telemetry.ID]*catalog.StreamRow
}

// instance finds an instance after archive has taken over what was accepted before the request.
func (s *Service) instance(ctx context.Context, view *View, id telemetry.ID) (*instanceRow, error) {
	in, err := s.findInstance(ctx, view, id)
	if err != nil {
		return nil, err
	}
	if err := s.flush(ctx, in); err != nil {
		return nil, err
	}
	return s.known(ctx, view, id)
}

// known finds an instance. One that the catalog does not know is an error.
func (s *Service) known(ctx context.Context, view *View, id telemetry.ID) (*instanceRow, error) {
	in, err := s.findInstance(ctx, view, id)
	if err != nil || in != nil {
		return in, err
	}
	kind := "Stream"
	if view.Table.Instance == tables.Process {
		kind = "Process"
	}
	return nil, &bus.MaterializeError{Code: bus.UnknownInstance, Message: kind + " not found"}
}

// flush has archive take over what was accepted: of the instance's process, or of all when it is not known yet.
func (s *Service) flush(ctx context.Context, in *instanceRow) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FlushTimeout)
	defer cancel()
	var shards []bus.Shard
	if in != nil {
		id := in.process.ID
		shards = []bus.Shard{s.parts.Bus.ShardOf(bus.Eager, id), s.parts.Bus.ShardOf(bus.Raw, id)}
	} else {
		shards = s.parts.Bus.Shards()
	}
	errs := make(chan error, len(shards))
	for _, shard := range shards {
		go func() { errs <- s.flushShard(ctx, shard) }()
	}
	var all []error
	for range shards {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// Pauses between questions to an archive that has no owner, or whose owner stops.
const (
	flushPauseMin = 20 * time.Millisecond
	flushPauseMax = 200 * time.Millisecond
)

func (s *Service) flushShard(ctx context.Context, shard bus.Shard) error {
	for pause := flushPauseMin; ; pause = min(2*pause, flushPauseMax) {
		reply, err := s.parts.Bus.Flush(ctx, shard, bus.FlushRequest{Target: bus.TargetArchive})
		if err == nil && reply.Err == "" {
			return nil
		}
		if err == nil {
			err = errors.New(reply.Err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("ask archive of shard %s: %w", shard, errors.Join(err, ctx.Err()))
		case <-timer.C:
		}
	}
}

// findInstance returns nil when the catalog does not know the instance.
func (s *Service) findInstance(ctx context.Context, view *View, id telemetry.ID) (*instanceRow, error) {
	var rows []catalog.StreamRow
	var err error
	process := id
	if view.Table.Instance == tables.Stream {
		rows, err = s.parts.Catalog.Streams(ctx, []telemetry.ID{id})
		if err == nil && (len(rows) == 0 || rows[0].Registered == 0) {
			return nil, nil //nolint:nilnil // an instance that is not there is no failure yet
		}
		if err == nil {
			process = rows[0].ProcessID
		}
	} else {
		rows, err = s.parts.Catalog.ProcessStreams(ctx, []telemetry.ID{id})
	}
	if err != nil {
		return nil, fmt.Errorf("look up the streams of %s: %w", id, err)
	}
	processes, err := s.parts.Catalog.Processes(ctx, []telemetry.ID{process})
	if err != nil {
		return nil, fmt.Errorf("look up process %s: %w", process, err)
	}
	if len(processes) == 0 || processes[0].Registered == 0 {
		return nil, nil //nolint:nilnil // see above
	}
	in := &instanceRow{process: processes[0], no: processes[0].No, streams: map[telemetry.ID]*catalog.StreamRow{}}
	p := &processes[0].Process
	in.Process = &materializers.Process{Process: *p, Text: p.ID.String(), Properties: telemetry.PropertiesJSON(p.Properties)}
	in.Streams = map[telemetry.ID]*Stream{}
	for i := range rows {
		row := &rows[i]
		if view.Table.Instance == tables.Stream {
			in.no = row.No
		}
		if row.Registered == 0 || !row.HasBlocks || telemetry.TagOf(row.Tags) != view.Tag && view.Table.Instance != tables.Stream || row.Format != telemetry.FormatTransit {
			continue
		}
		in.streams[row.ID] = row
		in.Streams[row.ID] = &Stream{ID: row.ID, Text: row.ID.String(), Properties: row.Properties}
	}
	if view.Table.Instance == tables.Stream && len(in.Streams) == 0 { // nothing was archived of it: it still has a name
		row := &rows[0]
		in.Streams[row.ID] = &Stream{ID: row.ID, Text: row.ID.String(), Properties: row.Properties}
	}
	return in, nil
}

// slice is the blocks of one partition.
type slice struct {
	hour   int64
	no     int16
	blocks []catalog.BlockRow // in order
	hash   []byte             // of their ids
	weight

	have *catalog.Partition // live, of the same hour and number
	kept stored             // its state
	same bool               // have is of the same blocks, and of the same clock
}

// weight is how much something is.
type weight struct{ count, objects, bytes int64 }

func (w *weight) add(b *catalog.BlockRow) {
	w.count++
	w.objects += int64(b.NbObjects)
	w.bytes += b.PackLength
}

// stored is the State of a partition in the catalog.
type stored struct {
	Entry string          `json:"entry,omitempty"` // what its rows depend on beside its blocks
	Key   string          `json:"key,omitempty"`   // what rows of the next one depend on, hashed
	Carry json.RawMessage `json:"carry,omitempty"`
	Note  json.RawMessage `json:"note,omitempty"`
	Open  int64           `json:"open,omitempty"` // spans that are in no file

	// The latest end of the process's blocks, from which its clock was estimated; zero when its frequency is known.
	ClockTicks int64 `json:"clock_ticks,omitempty"`
	ClockTime  int64 `json:"clock_time,omitempty"`

	Quarantined []quarantined `json:"quarantined,omitempty"`
	Hidden      int64         `json:"hidden,omitempty"` // blocks that were left out beyond those named
}

// quarantined is a block that was left out.
type quarantined struct {
	Block  string `json:"block"`
	Reason string `json:"reason"`
}

// maxQuarantined bounds the blocks that one partition names.
const maxQuarantined = 32

// plan is a window: what is there, and what must be built.
type plan struct {
	view   *View
	in     *instanceRow
	begin  int64
	end    int64
	slices []*slice
	// commitNo is of the catalog before the partitions were looked up: none of those that the plan uses was retired by then.
	commitNo int64
	extra    []catalog.Partition // live ones of the window's hours beyond their last slices

	before []catalog.BlockRow // upon which the first slice is built
	entry  entry              // of the first slice, unless it is built upon before
}

// entry is upon what a partition is built.
type entry struct {
	name  string // compares with stored.Entry
	carry []byte
	ready bool // carry is there; else it must be made of plan.before
}

const hourNs = int64(time.Hour)

// hourOf returns the begin of the hour in which a time is. The first hour that has a begin has the times before it, too.
func hourOf(t int64) int64 {
	h := t - t%hourNs
	if t%hourNs < 0 && h >= math.MinInt64+hourNs {
		h -= hourNs
	}
	return h
}

// hours divides the blocks of an instance. The first hour is the one in which the process started; it has all blocks that say that they
// began before. So one that says something absurd does not make the window of every request reach back to it.
type hours struct{ first int64 }

func (r *instanceRow) hours() hours { return hours{hourOf(r.process.StartTime)} }

func (h hours) of(begin int64) int64 { return max(hourOf(begin), h.first) }

// begin is the least begin time of the blocks of an hour.
func (h hours) begin(hour int64) int64 {
	if hour == h.first {
		return math.MinInt64
	}
	return hour
}

// end is above the begin times of the blocks of an hour. Nothing begins at math.MaxInt64: the catalog cuts times to microseconds.
func (h hours) end(hour int64) int64 {
	if hour > math.MaxInt64-hourNs {
		return math.MaxInt64
	}
	return hour + hourNs
}

// plan finds the blocks of a window, and what is built of them.
func (s *Service) plan(ctx context.Context, view *View, in *instanceRow, begin, end int64) (*plan, error) {
	p := &plan{view: view, in: in, begin: begin, end: end}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for id := range in.streams {
		meeting, err := s.parts.Blocks.Meeting(ctx, id, begin, end)
		if err != nil {
			return nil, fmt.Errorf("find the blocks of the range: %w", err)
		}
		for i := range meeting {
			first, last = min(first, meeting[i].BeginTime), max(last, meeting[i].BeginTime)
		}
	}
	if first > last {
		return p, nil
	}
	h := in.hours()
	from, to := h.begin(h.of(first)), h.end(h.of(last))
	blocks, err := s.begun(ctx, in, from, to)
	if err != nil {
		return nil, err
	}
	p.slices = s.slices(h, blocks)
	if p.commitNo, err = s.parts.Catalog.CommitNo(ctx); err != nil { // before the partitions
		return nil, fmt.Errorf("look up the last commit: %w", err)
	}
	parts, err := s.parts.Catalog.InstancePartitions(ctx, view.Table.Name, in.no)
	if err != nil {
		return nil, fmt.Errorf("look up partitions: %w", err)
	}
	for i := range parts {
		if part := &parts[i]; !s.match(p, p.slices, part) && part.Bucket >= from && part.Bucket < to {
			p.extra = append(p.extra, *part)
		}
	}
	if view.Chained {
		err = s.findEntry(ctx, p, parts, from)
	}
	return p, err
}

// begun returns the blocks of an instance that begin in [from, to).
func (s *Service) begun(ctx context.Context, in *instanceRow, from, to int64) ([]catalog.BlockRow, error) {
	var all []catalog.BlockRow
	for id := range in.streams {
		rows, err := s.parts.Blocks.Begun(ctx, id, from, to)
		if err != nil {
			return nil, fmt.Errorf("list blocks: %w", err)
		}
		all = append(all, rows...)
	}
	return all, nil
}

// order is that of blocks in a partition.
func order(a, b catalog.BlockRow) int {
	return cmp.Or(cmp.Compare(a.BeginTicks, b.BeginTicks), cmp.Compare(a.EndTicks, b.EndTicks), cmp.Compare(a.InsertTime, b.InsertTime), a.ID.Compare(b.ID))
}

// slices divides blocks by hours, and hours by weight.
func (s *Service) slices(h hours, blocks []catalog.BlockRow) []*slice {
	slices.SortFunc(blocks, func(a, b catalog.BlockRow) int {
		return cmp.Or(cmp.Compare(h.of(a.BeginTime), h.of(b.BeginTime)), order(a, b))
	})
	var out []*slice
	var cur *slice
	for i := range blocks {
		b := &blocks[i]
		hour := h.of(b.BeginTime)
		switch {
		case cur == nil || cur.hour != hour:
			cur = &slice{hour: hour}
			out = append(out, cur)
		case cur.objects+int64(b.NbObjects) > s.cfg.SliceObjects || cur.bytes+b.PackLength > s.cfg.SliceBytes:
			if cur.no == math.MaxInt16 { // the last one takes the rest
				break
			}
			cur = &slice{hour: hour, no: cur.no + 1}
			out = append(out, cur)
		}
		cur.blocks = append(cur.blocks, *b)
		cur.add(b)
	}
	for _, c := range out {
		c.hash = hashBlocks(c.blocks)
	}
	return out
}

// hashBlocks is the SHA-256 of the ids of blocks, sorted.
func hashBlocks(blocks []catalog.BlockRow) []byte {
	ids := make([]telemetry.ID, len(blocks))
	for i := range blocks {
		ids[i] = blocks[i].ID
	}
	slices.SortFunc(ids, telemetry.ID.Compare)
	h := sha256.New()
	for i := range ids {
		h.Write(ids[i][:])
	}
	return h.Sum(nil)
}

// match gives a partition to the slice of its hour and number. It is false when there is none.
func (s *Service) match(p *plan, list []*slice, part *catalog.Partition) bool {
	i, ok := slices.BinarySearchFunc(list, part, func(c *slice, part *catalog.Partition) int {
		return cmp.Or(cmp.Compare(c.hour, part.Bucket), cmp.Compare(c.no, part.Level))
	})
	if ok {
		s.take(p, list[i], part)
	}
	return ok
}

// take notes that a slice has a partition, and whether that is of the same blocks.
func (s *Service) take(p *plan, c *slice, part *catalog.Partition) {
	c.have = part
	if json.Unmarshal(part.State, &c.kept) == nil { // else it is of a version that is not ours, and built anew
		c.same = part.SchemaVer == schemaVersion && bytes.Equal(part.SrcHash, c.hash) && s.sameClock(p, c)
	}
}

// sameClock reports whether the process's clock, where it is an estimate, still gives the times that a partition was built with.
func (s *Service) sameClock(p *plan, c *slice) bool {
	if p.view.Clock == BlockClock || p.in.process.TSCFrequency > 0 {
		return true
	}
	then, err := telemetry.NewClock(p.in.process.Process, telemetry.Block{EndTicks: c.kept.ClockTicks, EndTime: c.kept.ClockTime})
	if err != nil {
		return false
	}
	now, err := p.clock()
	if err != nil {
		return false
	}
	last := c.blocks[len(c.blocks)-1].EndTicks
	moved := now.Relative(last) - then.Relative(last)
	return max(moved, -moved) <= int64(s.cfg.ClockTolerance)
}

// clock returns the clock of the process.
func (p *plan) clock() (telemetry.Clock, error) {
	r := &p.in.process
	c, err := telemetry.NewClock(r.Process, telemetry.Block{EndTicks: r.LastTicks, EndTime: r.LastTicksTime})
	if err != nil {
		return c, fmt.Errorf("clock of process %s: %w", r.ID, err)
	}
	return c, nil
}

// findEntry decides upon what the first slice is built: the partition before it when that is fresh, else some blocks before it.
func (s *Service) findEntry(ctx context.Context, p *plan, parts []catalog.Partition, from int64) error {
	for id := range p.in.streams {
		rows, err := s.parts.Blocks.Before(ctx, id, from, s.cfg.Context)
		if err != nil {
			return fmt.Errorf("find the blocks before: %w", err)
		}
		p.before = append(p.before, rows...)
	}
	slices.SortFunc(p.before, order)
	if len(p.before) == 0 {
		p.entry = entry{ready: true}
		return nil
	}
	p.entry = entry{name: "blocks:" + hexHash(hashBlocks(p.before))}
	h := p.in.hours()
	hour := int64(math.MaxInt64)
	for i := range p.before {
		hour = min(hour, h.of(p.before[i].BeginTime))
	}
	if !slices.ContainsFunc(parts, func(part catalog.Partition) bool { return part.Bucket >= hour && part.Bucket < from }) {
		return nil
	}
	blocks, err := s.begun(ctx, p.in, h.begin(hour), from)
	if err != nil {
		return err
	}
	list := s.slices(h, blocks)
	for i := range parts {
		s.match(p, list, &parts[i])
	}
	if last := lastFresh(list, p.before); last != nil {
		p.entry = last.kept.leaves()
	}
	return nil
}

// lastFresh returns the last of the slices before a window if it is fresh as far as the blocks upon which the window would be built
// without it: those that hold them are of the same blocks, and each is built upon the one before.
func lastFresh(list []*slice, before []catalog.BlockRow) *slice {
	known := map[telemetry.ID]bool{}
	for i := range before {
		known[before[i].ID] = true
	}
	var last *slice
	for _, c := range list {
		holds := slices.ContainsFunc(c.blocks, func(b catalog.BlockRow) bool { return known[b.ID] })
		if last == nil && !holds {
			continue
		}
		if !c.same || last != nil && c.kept.Entry != last.kept.leaves().name {
			return nil
		}
		last = c
	}
	return last
}

// leaves is the entry of the partition after the one that is stored.
func (k *stored) leaves() entry { return entry{name: "state:" + k.Key, carry: k.Carry, ready: true} }

func hexHash(b []byte) string { return fmt.Sprintf("%x", b[:16]) }

// isFresh reports whether a slice is built upon an entry.
func (p *plan) isFresh(c *slice, e entry) bool {
	return c.same && (!p.view.Chained || c.kept.Entry == e.name)
}

// fresh reports whether nothing must be built.
func (p *plan) fresh() bool { return len(p.extra) == 0 && p.staleBlocks() == 0 }

// staleBlocks returns the number of blocks that must be decoded at least: later slices may turn out to depend on what is built.
func (p *plan) staleBlocks() int64 { return p.stale().count }

func (p *plan) stale() (w weight) {
	e := p.entry
	for _, c := range p.slices {
		if !p.isFresh(c, e) {
			w.count += c.count
			w.objects += c.objects
			w.bytes += c.bytes
			if !c.same { // what it will leave is not known: the next one may stay
				e = entry{name: c.nextEntry(p)}
				continue
			}
		}
		e = c.kept.leaves()
	}
	return w
}

// nextEntry guesses that a slice that is built will leave what the next one was built upon.
func (c *slice) nextEntry(p *plan) string {
	i := slices.Index(p.slices, c)
	if i+1 < len(p.slices) {
		return p.slices[i+1].kept.Entry
	}
	return ""
}

func (p *plan) leaseName() string {
	return fmt.Sprintf("%s%s/%d", leasePrefix, p.view.Table.Name, p.in.no)
}

// reply says what to read: all of it is built, or the request was a dry one.
func (p *plan) reply(ctx context.Context, s *Service) (bus.MaterializeReply, error) {
	var r bus.MaterializeReply
	stale := p.stale()
	r.BuiltBlocks = stale.count
	var lefts []Left
	for _, c := range p.slices {
		r.Blocks += c.count
		r.Objects += c.objects
		r.Bytes += c.bytes
		r.Partitions++
		if !c.same {
			continue
		}
		r.FreshPartitions++
		lefts = append(lefts, Left{Carry: c.kept.Carry, Note: c.kept.Note})
		r.Warnings = append(r.Warnings, c.kept.warnings()...)
	}
	if stale.count > 0 || len(p.slices) == 0 { // dry, or nothing
		return r, nil
	}
	s.stats.fresh.Add(r.FreshPartitions)
	var w Window
	var err error
	if p.view.Window != nil {
		if w, err = p.view.Window(&p.in.Instance, lefts); err != nil {
			return r, fmt.Errorf("put partitions together: %w", broken(err))
		}
	}
	for i, c := range p.slices {
		part := c.have
		if part.Size == 0 || part.MinTime > p.end || part.MaxTime < p.begin {
			continue
		}
		f := bus.MaterializedFile{Key: part.Key, Size: part.Size, Rows: part.Rows - c.kept.Open, MinTime: part.MinTime, MaxTime: part.MaxTime}
		if w.Shifts != nil {
			f.DepthShift, f.ShiftFrom = w.Shifts[i].Depth, w.Shifts[i].From
		}
		r.Files = append(r.Files, f)
	}
	for i := range w.Open {
		if o := &w.Open[i]; o.Begin <= p.end && o.End >= p.begin {
			r.Open = append(r.Open, *o)
		}
	}
	r.Later = len(r.Open) > 0 && p.later()
	r.CommitNo = p.commitNo
	return r, nil
}

// later reports whether the instance has blocks that end after all those of the plan.
func (p *plan) later() bool {
	last := int64(math.MinInt64)
	for _, c := range p.slices {
		for i := range c.blocks {
			last = max(last, c.blocks[i].EndTime)
		}
	}
	for _, row := range p.in.streams {
		if row.LastTime > last {
			return true
		}
	}
	return false
}

func (k *stored) warnings() []string {
	var out []string
	for _, q := range k.Quarantined {
		out = append(out, fmt.Sprintf("block %s is left out: %s", q.Block, q.Reason))
	}
	if k.Hidden > 0 {
		out = append(out, fmt.Sprintf("%d more blocks are left out", k.Hidden))
	}
	return out
}
