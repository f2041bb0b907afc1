package netspans_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers/netspans"
	"github.com/micromegas-go/micromegas/materializers/viewtest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// net is a process with one net stream.
type net struct {
	*viewtest.Instance
	stream telemetry.ID
}

func newNet() net {
	in := viewtest.NewInstance()
	return net{in, in.AddStream("net", wire.NetTypes)}
}

// add adds a block of events, one of these each:
//
//	conn NAME in|out T    obj NAME T    rpc NAME T    prop NAME BITS T    /conn BITS T    /obj BITS T    /rpc BITS T
func (n net) add(begin, end, offset int64, events ...string) {
	var deps, objs []byte
	ids := map[string]wire.StaticRef{}
	name := func(s string) wire.StaticRef {
		ref, ok := ids[s]
		if !ok {
			ref = wire.StaticRef{ID: uint64(len(ids) + 1), Len: uint32(len(s))}
			ids[s] = ref
			deps = wire.AppendStaticStringDependency(deps, wire.NetDepStaticStringDependency, ref.ID, s)
		}
		return ref
	}
	number := func(s string) int64 {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic(err)
		}
		return v
	}
	for _, e := range events {
		f := strings.Fields(e)
		at := number(f[len(f)-1])
		switch f[0] {
		case "conn":
			objs = wire.AppendNetConnectionBegin(objs, at, name(f[1]), f[2] == "out")
		case "obj":
			objs = wire.AppendNetBegin(objs, wire.NetObjectBegin, at, name(f[1]))
		case "rpc":
			objs = wire.AppendNetBegin(objs, wire.NetRPCBegin, at, name(f[1]))
		case "prop":
			objs = wire.AppendNetProperty(objs, at, name(f[1]), uint32(number(f[2])))
		case "/conn":
			objs = wire.AppendNetEnd(objs, wire.NetConnectionEnd, at, uint32(number(f[1])))
		case "/obj":
			objs = wire.AppendNetEnd(objs, wire.NetObjectEnd, at, uint32(number(f[1])))
		case "/rpc":
			objs = wire.AppendNetEnd(objs, wire.NetRPCEnd, at, uint32(number(f[1])))
		default:
			panic(e)
		}
	}
	n.AddBlock(n.stream, begin, end, offset, deps, objs)
}

// lines builds the view and returns its rows in their order.
func (n net) lines(t *testing.T, sizes ...int) []string {
	t.Helper()
	return viewtest.Lines(n.BuildParts(t, netspans.View(), append(sizes, len(n.Blocks))...), columns...)
}

var columns = []string{
	"span_id", "parent_span_id", "depth", "kind", "name", "connection_name", "is_outgoing", "begin_bits", "end_bits", "bit_size", "begin_time", "end_time",
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" && len(want)+len(got) > 0 {
		t.Error(diff)
	}
}

func TestSpansNestByBits(t *testing.T) {
	n := newNet()
	n.add(0, 100, 1, "conn 127.0.0.1:7777 in 10", "obj ObjA 11", "prop PropA1 8 12", "prop PropA2 16 13", "/obj 32 14",
		"obj ObjB 15", "prop PropB1 4 16", "/obj 6 17", "/conn 40 18")
	equal(t, n.lines(t),
		"3 2 2 property PropA1 127.0.0.1:7777 0 0 8 8 12 12",
		"4 2 2 property PropA2 127.0.0.1:7777 0 8 24 16 13 13",
		"2 1 1 object ObjA 127.0.0.1:7777 0 0 32 32 11 14",
		"7 6 2 property PropB1 127.0.0.1:7777 0 0 4 4 16 16",
		"6 1 1 object ObjB 127.0.0.1:7777 0 32 38 6 15 17",
		"1 -1 0 connection 127.0.0.1:7777 127.0.0.1:7777 0 0 40 40 10 18",
	)
}

func TestCapturedUnrealStream(t *testing.T) {
	in := viewtest.Read(t, "../../schemas/wire/testdata/synthetic_unreal")
	p := in.Build(t, netspans.View())
	const t0 = 1735787045678000000
	equal(t, viewtest.Lines([]*viewtest.Part{p}, "span_id", "parent_span_id", "depth", "kind", "name", "begin_bits", "end_bits", "is_outgoing"),
		"2 1 2 property Health 0 32 1",
		"3 1 2 rpc ServerFire 32 96 1",
		"1 0 1 object BP_Pawn_C_1 0 128 1",
		"0 -1 0 connection IpConnection_0 0 128 1",
	)
	ms := int64(1_000_000)
	equal(t, viewtest.Lines([]*viewtest.Part{p}, "begin_time", "end_time")[1:2], fmt.Sprint(t0+130*ms, t0+140*ms))
	var ids []string
	for _, s := range in.Streams {
		if telemetry.TagOf(s.Tags) == telemetry.TagNet {
			ids = append(ids, in.Process.ID.String()+" "+s.ID.String())
		}
	}
	equal(t, slices.Compact(viewtest.Lines([]*viewtest.Part{p}, "process_id", "stream_id")), ids...)
}

// The published example of the SQL surface, check 119.
func TestPublishedRows(t *testing.T) {
	n := newNet()
	n.add(0, 100_000, 0, "conn conn1 out 80000", "obj Pawn 80001", "prop hp 32 80002", "prop pos 96 80003", "/obj 140 80004",
		"rpc Fire 80005", "/rpc 64 80006", "/conn 220 80007")
	parts := n.BuildParts(t, netspans.View(), len(n.Blocks))
	equal(t, viewtest.Lines(parts, "span_id", "parent_span_id", "depth", "kind", "name", "begin_bits", "end_bits", "connection_name", "is_outgoing"),
		"2 1 2 property hp 0 32 conn1 1",
		"3 1 2 property pos 32 128 conn1 1",
		"1 0 1 object Pawn 0 140 conn1 1",
		"5 0 1 rpc Fire 140 204 conn1 1",
		"0 -1 0 connection conn1 0 220 conn1 1",
	)
}

func TestEndsOfAnotherKindAreIgnored(t *testing.T) {
	n := newNet()
	n.add(0, 100, 0, "conn C in 1", "obj O 2", "/conn 9999 3", "/rpc 9999 4", "/obj 16 5", "/obj 9999 6", "/conn 24 7")
	equal(t, n.lines(t), "1 0 1 object O C 0 0 16 16 2 5", "0 -1 0 connection C C 0 0 24 24 1 7")
}

func TestWhatIsNotWholeIsNoRow(t *testing.T) {
	n := newNet()
	n.add(0, 100, 0, "/conn 8 1")
	equal(t, n.lines(t))
	n = newNet()
	n.add(0, 100, 0, "conn C in 1")
	equal(t, n.lines(t))
}

func TestPropertiesAndObjectsOutsideConnections(t *testing.T) {
	n := newNet()
	n.add(0, 100, 0, "prop P 3 1", "obj O 2", "prop Q 5 3", "/obj 7 4")
	equal(t, n.lines(t), "0 -1 0 property P  0 0 3 3 1 1", "2 1 1 property Q  0 0 5 5 3 3", "1 -1 0 object O  0 0 7 7 2 4")
}

func TestConnectionsInsideConnections(t *testing.T) {
	n := newNet()
	n.add(0, 100, 1, "conn outer out 1", "conn inner in 2", "prop P 4 3", "/conn 10 4", "/conn 20 5")
	equal(t, n.lines(t),
		"3 2 1 property P outer 1 0 4 4 3 3",
		"2 -1 0 connection inner outer 1 0 10 10 2 4",
		"1 -1 0 connection outer outer 1 0 20 20 1 5",
	)
}

func TestSpansGoOverTouchingBlocks(t *testing.T) {
	for _, sizes := range [][]int{{}, {1}} {
		n := newNet()
		n.add(0, 100, 42, "conn C out 10", "prop P 8 20")
		n.add(100, 200, 44, "prop Q 4 110", "/conn 16 120")
		equal(t, n.lines(t, sizes...), "43 42 1 property P C 1 0 8 8 20 20", "44 42 1 property Q C 1 8 12 4 110 110", "42 -1 0 connection C C 1 0 16 16 10 120")
		n = newNet()
		n.add(0, 100, 42, "conn C out 10")
		n.add(101, 200, 43, "prop Q 4 110", "/conn 16 120")
		equal(t, n.lines(t, sizes...), "43 -1 0 property Q  0 0 4 4 110 110")
	}
}

// Chains of blocks (begin, end): a connection that is open from the first event of each goes to the last one only where all touch.
func TestChains(t *testing.T) {
	for _, c := range []struct {
		blocks [][2]int64
		want   int
	}{
		{[][2]int64{{0, 105}, {100, 205}, {200, 305}}, 1},
		{[][2]int64{{0, 100}, {500, 600}}, 2},
		{[][2]int64{{0, 1000}, {10, 20}, {1000, 1100}}, 1},
		{[][2]int64{{0, 100}, {100, 100}, {100, 200}}, 1},
	} {
		for _, sizes := range [][]int{{}, {1}, {1, 1}, {2}} {
			n := newNet()
			for i, b := range c.blocks {
				n.add(b[0], b[1], int64(i), fmt.Sprintf("conn C in %d", b[0]))
			}
			last := c.blocks[len(c.blocks)-1]
			n.add(last[1], last[1]+1, 10, slices.Repeat([]string{fmt.Sprintf("/conn 1 %d", last[1])}, 4)...)
			if got, want := len(n.lines(t, sizes...)), len(c.blocks)+1-c.want; got != want {
				t.Errorf("%v in %v: %d rows, want %d", c.blocks, sizes, got, want)
			}
		}
	}
}

func TestStreamsOfAProcessAreApart(t *testing.T) {
	n := newNet()
	other := net{n.Instance, n.AddStream("net", wire.NetTypes)}
	n.add(0, 100, 0, "conn A in 10")
	other.add(5, 105, 0, "conn B out 15", "obj O 20")
	n.add(100, 200, 1, "prop P 8 110", "/conn 9 120")
	other.add(300, 400, 2, "/obj 9 310", "/conn 9 310")
	n.add(200, 300, 3, "/conn 9 210", "prop Q 1 220")
	want := []string{"1 0 1 property P A 0 0 8 8 110 110", "0 -1 0 connection A A 0 0 9 9 10 120", "4 -1 0 property Q  0 0 1 1 220 220"}
	for _, sizes := range [][]int{{}, {1}, {2}, {1, 1, 1}} {
		equal(t, n.lines(t, sizes...), want...)
	}
}

// What partitions divide must not be seen in rows, and what one leaves must be the same however it was divided before.
func TestDivisionIsNotSeen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		n := newNet()
		streams := []net{n, {n.Instance, n.AddStream("net", wire.NetTypes)}}
		var at, offset [2]int64
		for range 12 {
			k := rnd.IntN(2)
			if rnd.IntN(5) == 0 {
				at[k] += 5 // a block is missing
			}
			var events []string
			begin := at[k]
			for range rnd.IntN(12) {
				at[k]++
				events = append(events, fmt.Sprint([]string{"conn C out", "conn D in", "obj O", "rpc R", "prop P 3", "/obj 9", "/rpc 8", "/conn 7", "/obj 20"}[rnd.IntN(9)], " ", at[k]))
			}
			streams[k].add(begin, at[k], offset[k], events...)
			offset[k] += int64(len(events))
		}
		whole := n.BuildParts(t, netspans.View(), len(n.Blocks))
		var sizes []int
		for range rnd.IntN(5) {
			sizes = append(sizes, rnd.IntN(4))
		}
		parts := n.BuildParts(t, netspans.View(), append(sizes, 0)...)
		equal(t, viewtest.Lines(parts, columns...), viewtest.Lines(whole, columns...)...)
		if got, want := parts[len(parts)-1].Leaving.Carry, whole[0].Leaving.Carry; !slices.Equal(got, want) {
			t.Errorf("leaves %s, want %s", got, want)
		}
	}
}

func TestWhatIsOpenIsBounded(t *testing.T) {
	n := newNet()
	deep := func(count int, name string, from int64) (events []string) {
		for i := range count {
			events = append(events, fmt.Sprintf("obj %s %d", name, from+int64(i)))
		}
		return events
	}
	n.add(0, 10, 0, "conn C out 1", "obj O 2", "prop P 1 3")
	n.add(10, 20, 3, append([]string{"prop P 2 11", "/obj 50 12", "obj X 13"}, deep(1024, "N", 14)...)...)
	n.add(10, 30, 2000, "prop P 4 21", "/obj 60 22", "/conn 70 23")
	p := n.Build(t, netspans.View())
	if len(p.Quarantined) != 1 || p.Quarantined[0].Block != n.Blocks[1].ID {
		t.Errorf("left out: %v", p.Quarantined)
	}
	equal(t, viewtest.Lines([]*viewtest.Part{p}, columns...),
		"2 1 2 property P C 1 0 1 1 3 3", "2000 1 2 property P C 1 1 5 4 21 21", "1 0 1 object O C 1 0 60 60 2 22", "0 -1 0 connection C C 1 0 70 70 1 23")

	// The worst that fits is stored.
	n = newNet()
	n.add(0, 1, 0, deep(640, "N", 0)...)
	for i := range int64(60) {
		n.add(1, 1, 1000+10*i, deep(10, strings.Repeat("<", 255), 1)...)
	}
	p = n.Build(t, netspans.View())
	if size := len(p.Leaving.Carry); len(p.Quarantined) != 22 || !json.Valid(p.Leaving.Carry) || size < 500_000 || size > 1<<20*9/10 {
		t.Errorf("%d blocks left out, %d bytes left", len(p.Quarantined), size)
	}
	if err := n.Enter(netspans.View(), p.Leaving.Carry); err != nil {
		t.Error(err)
	}
}

func TestCarryThatIsNoneIsRefused(t *testing.T) {
	in := newNet()
	in.add(0, 1, 0, "prop P 1 0")
	for _, carry := range []string{"", "[]", `{"streams":[{"id":"x"}]}`, `{"streams":[{"id":"0634ee82-b747-5e34-8aac-e22e091284ea","open":[{"kind":4}]}]}`} {
		if err := in.Enter(netspans.View(), []byte(carry)); err == nil {
			t.Errorf("%q passes", carry)
		}
	}
}

func TestTooManyRowsOfABlock(t *testing.T) {
	n := newNet()
	n.MaxRows = 2
	n.add(0, 1, 0, "prop P 1 0", "prop P 1 0", "prop P 1 0")
	n.add(1, 2, 3, "prop P 1 1", "prop P 1 1")
	if p := n.Build(t, netspans.View()); len(p.Quarantined) != 1 || p.Rows.Len() != 2 {
		t.Errorf("%d rows, left out: %v", p.Rows.Len(), p.Quarantined)
	}
}

func BenchmarkBuild(b *testing.B) {
	n := newNet()
	var events []string
	for i := range 2500 {
		at := i * 4
		events = append(events, fmt.Sprintf("obj O%d %d", i%50, at), fmt.Sprintf("prop P%d 8 %d", i%30, at+1), fmt.Sprintf("prop Q 8 %d", at+2), fmt.Sprintf("/obj 20 %d", at+3))
	}
	n.add(0, 10_000, 0, events...)
	view := netspans.View()
	build := n.Builder(b, view)
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		rows += build()
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
