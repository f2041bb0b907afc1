package bus_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func testRecords() []*bus.Record {
	process := telemetry.ID{1, 2, 3}
	records := []*bus.Record{
		bustest.Block(process, 1, 1000), bustest.Block(process, 2, 0), bustest.Block(process, 3, 7), bustest.Block(process, 4, 300),
	}
	records[1].Kind, records[1].BlockID = bus.KindStream, telemetry.ID{}
	records[2].Body, records[2].Claim, records[2].BodySize, records[2].CRC = nil, bus.ClaimKey(telemetry.ID{9}), 5<<20, 77
	return records
}

func collect(f bus.Frame) (records []bus.Record) {
	for i, r := range f.Records() {
		if i != len(records) {
			panic("records are not numbered in order")
		}
		records = append(records, r)
	}
	return records
}

func TestFrameRoundTrip(t *testing.T) {
	records := testRecords()
	data := bus.AppendFrame([]byte("before"), records...)[len("before"):]
	if got, want := len(data), bus.FrameSize(records...); got != want {
		t.Errorf("frame of %d bytes, announced %d", got, want)
	}
	var want []bus.Record
	for _, r := range records {
		want = append(want, *r)
	}
	if diff := cmp.Diff(want, collect(bus.Frame{Data: data}), ignoreRead, sameBytes); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestDamageStaysWhereItIs flips every byte of a frame, one after another: no changed record is served as sound, and
// damage in one record leaves the others.
func TestDamageStaysWhereItIs(t *testing.T) {
	clean := bus.AppendFrame(nil, testRecords()...)
	want := collect(bus.Frame{Data: clean})
	header := 12 + 4*len(want)
	for i := range clean {
		data := bytes.Clone(clean)
		data[i] ^= 0x40
		got := collect(bus.Frame{Data: data})
		if i < header {
			if len(got) != 1 || !errors.Is(got[0].Err, bus.ErrUnreadable) {
				t.Fatalf("byte %d of the header: %d records, error %v", i, len(got), got[0].Err)
			}
			continue
		}
		damaged := 0
		for k, r := range got {
			if r.Err != nil {
				damaged++
				if !errors.Is(r.Err, bus.ErrUnreadable) {
					t.Fatalf("byte %d: error %v", i, r.Err)
				}
				continue
			}
			if diff := cmp.Diff(want[k], r, sameBytes); diff != "" {
				t.Fatalf("byte %d: record %d changed:\n%s", i, k, diff)
			}
		}
		if len(got) != len(want) || damaged != 1 {
			t.Fatalf("byte %d: %d records, %d damaged", i, len(got), damaged)
		}
	}
}

func TestDamagedBodyKeepsItsIdentity(t *testing.T) {
	records := testRecords()
	data := bus.AppendFrame(nil, records...)
	data[len(data)-1] ^= 1
	last := collect(bus.Frame{Data: data})[3]
	if last.Err == nil || last.BlockID != records[3].BlockID || last.Body != nil {
		t.Errorf("damaged record is %+v", last)
	}
}

func TestTruncatedFrameServesWhatIsWhole(t *testing.T) {
	clean := bus.AppendFrame(nil, testRecords()...)
	for n := range clean {
		sound := 0
		for _, r := range collect(bus.Frame{Data: clean[:n]}) {
			if r.Err == nil {
				sound++
			}
		}
		if sound > 3 || (n < 1000 && sound > 0) {
			t.Fatalf("cut at %d of %d: %d sound records", n, len(clean), sound)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(bus.AppendFrame(nil, testRecords()...))
	f.Add(bus.AppendFrame(nil, bustest.Block(telemetry.ID{5}, 1, 64)))
	f.Add([]byte("MMF\x01\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkParsed(t, data)
		checkParsed(t, resealed(data)) // past the header's checksum, which fuzzing does not guess
	})
}

// resealed returns a frame whose header and record checksums are right, whatever else it says.
func resealed(data []byte) []byte {
	if len(data) < 16 {
		return data
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	le := binary.LittleEndian
	data = bytes.Clone(data)
	copy(data, "MMF\x01")
	count := min(int(data[4])%16+1, (len(data)-12)/4)
	le.PutUint32(data[4:], uint32(count))
	begin := 12 + 4*count
	for i := range count {
		length := int(le.Uint32(data[12+4*i:])) % (len(data) + 1) // lengths that may just fit
		le.PutUint32(data[12+4*i:], uint32(length))
		if length >= 92 && begin+length <= len(data) {
			r := data[begin : begin+length]
			sum := crc32.Checksum(r[4:92], table)
			if r[6]&1 != 0 {
				sum = crc32.Update(sum, table, r[92:min(length, 92+1024)])
			}
			le.PutUint32(r, sum)
		}
		begin += length
	}
	le.PutUint32(data[8:], crc32.Update(crc32.Checksum(data[:8], table), table, data[12:12+4*count]))
	return data
}

// checkParsed parses data and says that what is served is what stands there, and comes back when it is written again.
func checkParsed(t *testing.T, data []byte) {
	t.Helper()
	var sound []*bus.Record
	for _, r := range collect(bus.Frame{Data: data}) {
		if r.Err != nil {
			if !errors.Is(r.Err, bus.ErrUnreadable) {
				t.Fatalf("error %v is not ErrUnreadable", r.Err)
			}
			continue
		}
		if r.Claim == "" && !bytes.Equal(data[r.Offset:r.Offset+len(r.Body)], r.Body) {
			t.Fatal("body is not at its offset")
		}
		sound = append(sound, &r)
	}
	if len(sound) == 0 {
		return
	}
	again := collect(bus.Frame{Data: bus.AppendFrame(nil, sound...)})
	for i, r := range again {
		r.Offset = sound[i].Offset
		if diff := cmp.Diff(*sound[i], r, sameBytes); diff != "" {
			t.Fatalf("record %d differs when written again:\n%s", i, diff)
		}
	}
}

func BenchmarkFrameRecords(b *testing.B) {
	var records []*bus.Record
	for i := range 30 {
		records = append(records, bustest.Block(telemetry.ID{1}, i, 34_000))
	}
	frame := bus.Frame{Data: bus.AppendFrame(nil, records...)}
	b.SetBytes(int64(len(frame.Data)))
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range frame.Records() {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
