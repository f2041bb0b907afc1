package lake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

var eager0 = catalog.ShardID{Class: 'e', Gen: 3, Shard: 1}

// frames makes n frames of shard eager0 with sequence numbers from first on, each of size bytes.
func frames(first uint64, n, size int) []bus.Frame {
	fs := make([]bus.Frame, n)
	for i := range fs {
		seq := first + uint64(i)
		fs[i] = bus.Frame{
			Position: bus.Position{Shard: bus.Shard{Class: bus.Eager, Shard: 1}, Gen: 3, Seq: seq},
			Data:     laketest.Bytes(seq, size+i%7),
		}
	}
	return fs
}

func mustPutPack(t testing.TB, l *lake.Lake, fs []bus.Frame) catalog.Pack {
	t.Helper()
	p, offsets, err := l.PutPack(t.Context(), eager0, fs)
	if err != nil {
		t.Fatal(err)
	}
	for i, off := range offsets {
		got, err := l.GetRange(t.Context(), p.Key, off, int64(len(fs[i].Data)))
		if err != nil || !bytes.Equal(got, fs[i].Data) {
			t.Fatalf("frame %d is not at its offset %d: %v", i, off, err)
		}
	}
	return p
}

// sameFrame spares cmp.Diff the long bodies.
func sameFrame(a, b bus.Frame) bool { return a.Position == b.Position && bytes.Equal(a.Data, b.Data) }

func TestPackGivesBackItsFrames(t *testing.T) {
	l := openMem(t)
	for _, c := range []struct{ n, size int }{{1, 0}, {1, 1}, {3, 100}, {2000, 20}, {5, 1 << 20}} {
		want := frames(41, c.n, c.size)
		p := mustPutPack(t, l, want)
		if p.Shard != eager0 || p.FirstSeq != 41 || p.LastSeq != 40+uint64(c.n) || p.Adopted || p.Created == 0 {
			t.Errorf("row of the pack = %+v", p)
		}
		if o, err := l.Stat(t.Context(), p.Key); err != nil || o.Size != p.Size {
			t.Errorf("pack has %d bytes, its row says %d (%v)", o.Size, p.Size, err)
		}
		got, err := l.ReadPack(t.Context(), p.Key)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(want, got, sameFrame) {
			t.Errorf("%d frames of %d bytes came back as %d other frames", c.n, c.size, len(got))
		}
		index, err := l.ReadPackIndex(t.Context(), p.Key, p.Size)
		if err != nil || index.Shard != eager0 || len(index.Frames) != c.n {
			t.Fatalf("index = %+v, %v", index, err)
		}
		for _, i := range []int{0, c.n / 2, c.n - 1} {
			f, err := l.ReadFrame(t.Context(), p.Key, index, index.Frames[i])
			if err != nil {
				t.Fatal(err)
			}
			if !sameFrame(want[i], f) {
				t.Errorf("frame %d came back as %s, %d bytes", i, f.Position, len(f.Data))
			}
		}
	}
}

func TestPutPackRefusesFramesThatDoNotBelong(t *testing.T) {
	l := openMem(t)
	f := func(what string, fs []bus.Frame) {
		t.Helper()
		if _, _, err := l.PutPack(t.Context(), eager0, fs); err == nil {
			t.Errorf("%s: PutPack succeeded", what)
		}
	}
	f("none", nil)
	wrong := frames(1, 2, 10)
	wrong[1].Gen++
	f("another generation", wrong)
	wrong = frames(1, 2, 10)
	wrong[1].Class = bus.Raw
	f("another class", wrong)
	wrong = frames(1, 2, 10)
	wrong[1].Shard.Shard = 0
	f("another shard", wrong)
	wrong = frames(1, 2, 10)
	wrong[0], wrong[1] = wrong[1], wrong[0]
	f("wrong order", wrong)
	wrong = frames(1, 2, 10)
	wrong[1].Seq = wrong[0].Seq
	f("the same twice", wrong)
}

func TestPackDetectsEveryDamage(t *testing.T) {
	l := openMem(t)
	p := mustPutPack(t, l, frames(7, 3, 40))
	good, err := l.Get(t.Context(), p.Key)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, data []byte) {
		t.Helper()
		if _, err := lake.ParsePack(data); !errors.Is(err, lake.ErrCorrupt) {
			t.Errorf("%s: ParsePack error = %v, want ErrCorrupt", what, err)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			f(fmt.Sprintf("bit %d of byte %d flipped", bit, i), bad)
		}
		f(fmt.Sprintf("cut to %d bytes", i), good[:i])
		f(fmt.Sprintf("without the first %d bytes", i+1), good[i+1:])
	}
	f("a byte more", append(bytes.Clone(good), 0))
	f("twice", append(bytes.Clone(good), good...))

	// The same for single frames: the one that is damaged is refused, the others are served.
	index, err := l.ReadPackIndex(t.Context(), p.Key, p.Size)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[index.Frames[1].Offset+5] ^= 0x10
	damaged := lake.PackKey(eager0, 7)
	if err := l.Put(t.Context(), damaged, bad); err != nil {
		t.Fatal(err)
	}
	for i, e := range index.Frames {
		_, err := l.ReadFrame(t.Context(), damaged, index, e)
		if errors.Is(err, lake.ErrCorrupt) != (i == 1) {
			t.Errorf("frame %d: %v", i, err)
		}
	}
	// When the bucket has the right bytes again, what was kept of the damaged ones is no obstacle.
	if _, err := l.ReadFrame(t.Context(), damaged, index, index.Frames[1]); !errors.Is(err, lake.ErrCorrupt) {
		t.Errorf("a damaged frame: %v", err)
	}
	if err := l.Put(t.Context(), damaged, good); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadFrame(t.Context(), damaged, index, index.Frames[1]); err != nil {
		t.Errorf("a frame that was repaired: %v", err)
	}
}

func TestPackOnAFailingBucket(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	want := frames(1, 4, 1000)
	p, _, err := l.PutPack(t.Context(), eager0, want)
	if err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]laketest.Fault{
		"before": {Before: true}, "reply lost": {After: true}, "torn": {Torn: true},
	} {
		faults.Decide(func(laketest.Op, string) laketest.Fault { return fault })
		if _, _, err := l.PutPack(t.Context(), eager0, want); !errors.Is(err, laketest.ErrInjected) {
			t.Errorf("%s: PutPack error = %v", name, err)
		}
		if got, err := l.ReadPack(t.Context(), p.Key); err == nil {
			t.Errorf("%s: ReadPack gave %d frames", name, len(got))
		}
		if _, err := l.GetRange(t.Context(), p.Key, 8, 100); err == nil {
			t.Errorf("%s: GetRange succeeded", name)
		}
	}
	faults.Decide(nil)
	if _, err := l.ReadPack(t.Context(), p.Key); err != nil {
		t.Errorf("the pack that was put well: %v", err)
	}
}

// packList is a catalog of packs.
type packList struct {
	mu    sync.Mutex
	packs []catalog.Pack
	err   error
}

func (l *packList) PacksAfter(_ context.Context, s catalog.ShardID, seq uint64, limit int) ([]catalog.Pack, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []catalog.Pack
	for _, p := range l.packs {
		if p.Shard == s && p.LastSeq > seq && len(found) < limit {
			found = append(found, p)
		}
	}
	return found, l.err
}

func position(seq uint64) bus.Position {
	return bus.Position{Shard: bus.Shard{Class: bus.Eager, Shard: 1}, Gen: 3, Seq: seq}
}

func TestPacksGiveFramesAfterAPosition(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	var all []bus.Frame
	rows := &packList{}
	for _, first := range []uint64{1, 11, 21} {
		fs := frames(first, 10, 500)
		rows.packs = append(rows.packs, mustPutPack(t, l, fs))
		all = append(all, fs...)
	}
	before := faults.Count(laketest.OpRead)
	packs := &lake.Packs{Lake: l, Catalog: rows}
	for after := range uint64(31) {
		got, err := packs.NextFrames(t.Context(), position(after))
		if err != nil {
			t.Fatal(err)
		}
		end := min((after/10+1)*10, 30)
		if d := cmp.Diff(append([]bus.Frame{}, all[after:end]...), append([]bus.Frame{}, got...)); d != "" {
			t.Errorf("after %d (-want +got)\n%.500s", after, d)
		}
	}
	if n := faults.Count(laketest.OpRead) - before; n != 3 {
		t.Errorf("read packs %d times, want each once", n)
	}
	other := position(0)
	other.Gen = 4
	if got, err := packs.NextFrames(t.Context(), other); got != nil || err != nil {
		t.Errorf("frames of another generation: %d, %v", len(got), err)
	}
}

func TestPacksReadAPackOnceForManyReaders(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	rows := &packList{packs: []catalog.Pack{mustPutPack(t, l, frames(1, 10, 500))}}
	before := faults.Count(laketest.OpRead)
	packs := &lake.Packs{Lake: l, Catalog: rows}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if got, err := packs.NextFrames(t.Context(), position(4)); err != nil || len(got) != 6 {
				t.Errorf("got %d frames, %v; want 6", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := faults.Count(laketest.OpRead) - before; n != 1 {
		t.Errorf("read the pack %d times, want once", n)
	}
}

func TestPacksDoNotKeepFailures(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	pack := mustPutPack(t, l, frames(1, 10, 500))
	rows := &packList{packs: []catalog.Pack{pack}}
	packs := &lake.Packs{Lake: l, Catalog: rows}
	faults.Decide(func(laketest.Op, string) laketest.Fault { return laketest.Fault{Before: true} })
	if _, err := packs.NextFrames(t.Context(), position(0)); !errors.Is(err, laketest.ErrInjected) {
		t.Errorf("error = %v, want the injected fault", err)
	}
	faults.Decide(nil)
	if got, err := packs.NextFrames(t.Context(), position(0)); err != nil || len(got) != 10 {
		t.Errorf("after the fault: %d frames, %v", len(got), err)
	}
	// A row that leads to another pack's frames.
	wrong := pack
	wrong.LastSeq = 12
	liar := &lake.Packs{Lake: l, Catalog: &packList{packs: []catalog.Pack{wrong}}}
	if _, err := liar.NextFrames(t.Context(), position(0)); !errors.Is(err, lake.ErrCorrupt) {
		t.Errorf("a row that lies: %v, want ErrCorrupt", err)
	}
	rows.err = errors.New("catalog is away")
	if _, err := packs.NextFrames(t.Context(), position(0)); !errors.Is(err, rows.err) {
		t.Errorf("error = %v, want the catalog's", err)
	}
}

func TestPacksCacheIsBounded(t *testing.T) {
	l, faults := openCounted(t, lake.Options{})
	defer closeLake(t, l)
	rows := &packList{}
	for i := range 4 {
		rows.packs = append(rows.packs, mustPutPack(t, l, frames(uint64(i*10+1), 10, 1000)))
	}
	packs := &lake.Packs{Lake: l, Catalog: rows, CacheBytes: 2 * rows.packs[0].Size}
	read := func(after uint64) int {
		t.Helper()
		before := faults.Count(laketest.OpRead)
		if _, err := packs.NextFrames(t.Context(), position(after)); err != nil {
			t.Fatal(err)
		}
		return faults.Count(laketest.OpRead) - before
	}
	for i, want := range []struct {
		after uint64
		reads int
	}{{0, 1}, {10, 1}, {0, 0}, {20, 1}, {0, 0}, {10, 1}, {30, 1}, {10, 0}} {
		if got := read(want.after); got != want.reads {
			t.Errorf("step %d: %d reads for frames after %d, want %d", i, got, want.after, want.reads)
		}
	}
}

func FuzzParsePack(f *testing.F) {
	l, err := lake.Open(f.Context(), "mem://", lake.Options{CacheDir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{1, 3} {
		p, _, err := l.PutPack(f.Context(), eager0, frames(5, n, 10))
		if err != nil {
			f.Fatal(err)
		}
		data, err := l.Get(f.Context(), p.Key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fs, err := lake.ParsePack(data)
		if err != nil {
			if !errors.Is(err, lake.ErrCorrupt) {
				t.Fatalf("error %v is not ErrCorrupt", err)
			}
			return
		}
		total := 0
		for _, fr := range fs {
			total += len(fr.Data)
		}
		if total > len(data) {
			t.Fatalf("%d bytes of frames in a pack of %d", total, len(data))
		}
	})
}

// packOf4MiB is what an archive commit writes under load: 34 kB bodies, about 24 of them to a frame.
func packOf4MiB() []bus.Frame { return frames(1, 5, 816<<10) }

func benchPutPack(b *testing.B, uri string) {
	l, err := lake.Open(b.Context(), uri, lake.Options{CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	}()
	fs := packOf4MiB()
	b.SetBytes(5 * 816 << 10)
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := l.PutPack(b.Context(), eager0, fs)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Delete(b.Context(), p.Key); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkPutPackFolder(b *testing.B) { benchPutPack(b, "file://"+b.TempDir()) }

func BenchmarkPutPackMemory(b *testing.B) { benchPutPack(b, "mem://") }

func BenchmarkReadPackFolder(b *testing.B) {
	l, err := lake.Open(b.Context(), "file://"+b.TempDir(), lake.Options{CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	p, _, err := l.PutPack(b.Context(), eager0, packOf4MiB())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(p.Size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.ReadPack(b.Context(), p.Key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGetRangeFolder reads one 34 kB body out of a pack, as just-in-time views do.
func BenchmarkGetRangeFolder(b *testing.B) {
	l, err := lake.Open(b.Context(), "file://"+b.TempDir(), lake.Options{CacheDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	p, offsets, err := l.PutPack(b.Context(), eager0, packOf4MiB())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(34 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.GetRange(b.Context(), p.Key, offsets[2], 34<<10); err != nil {
			b.Fatal(err)
		}
	}
}
