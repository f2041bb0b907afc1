package images

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/materializers/viewtest"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func lines(p *viewtest.Part, columns ...string) []string {
	return viewtest.Lines([]*viewtest.Part{p}, columns...)
}

func TestCapturedUnrealImage(t *testing.T) {
	in := viewtest.Read(t, "../../schemas/wire/testdata/synthetic_unreal")
	want := []string{"screenshot jpg 4 1735787045778000000"}
	if diff := cmp.Diff(want, lines(in.Build(t, View()), "name", "format", "payload_size", "time")); diff != "" {
		t.Error(diff)
	}
}

// Each block has a clock of its own: the process that was captured does not know its frequency.
func TestCapturedImages(t *testing.T) {
	in := viewtest.Read(t, "../../schemas/wire/testdata/images")
	if in.Process.TSCFrequency != 0 || len(in.Blocks) != 2 {
		t.Fatalf("frequency %d, %d blocks", in.Process.TSCFrequency, len(in.Blocks))
	}
	var want []string
	for i := range in.Blocks {
		one := *in
		one.Blocks = in.Blocks[i : i+1]
		want = append(want, lines(one.Build(t, View()), "block_id", "name", "time", "data")...)
	}
	if diff := cmp.Diff(want, lines(in.Build(t, View()), "block_id", "name", "time", "data")); diff != "" || len(want) < 3 {
		t.Errorf("%d images %s", len(want), diff)
	}
}

func TestRows(t *testing.T) {
	in := viewtest.NewInstance()
	one, two := in.AddStream("image", wire.ImageTypes), in.AddStream("image", wire.ImageTypes)
	objs := wire.AppendImage(nil, 70, "shot1", "image/png", []byte("\x89PNG"))
	objs = wire.AppendImage(objs, 30, "", "", nil)
	a := in.AddBlock(one, 0, 80, 0, nil, objs).ID
	b := in.AddBlock(two, 5, 90, 0, nil, wire.AppendImage(nil, 50, "shot1", "image/png", []byte("\x89PNG"))).ID
	p := in.Build(t, View())
	head := func(stream, block fmt.Stringer) string {
		insert := 80
		if block == fmt.Stringer(b) {
			insert = 90
		}
		return fmt.Sprintf("%s %s %s %d exe user host ", in.Process.ID, stream, block, insert)
	}
	want := []string{
		head(one, a) + "30   0 ",
		head(two, b) + "50 shot1 image/png 4 \x89PNG",
		head(one, a) + "70 shot1 image/png 4 \x89PNG",
	}
	if diff := cmp.Diff(want, lines(p, View().Table.ColumnNames()...)); diff != "" || p.Leaving.LastKey != 70 {
		t.Errorf("%d %s", p.Leaving.LastKey, diff)
	}
}

func TestPartitionsAreBounded(t *testing.T) {
	in := viewtest.NewInstance()
	in.MaxRows = 2
	stream := in.AddStream("image", wire.ImageTypes)
	image := func(size int) []byte { return wire.AppendImage(nil, 1, "i", "png", []byte(strings.Repeat("x", size))) }
	in.AddBlock(stream, 0, 1, 0, nil, image(600))
	in.AddBlock(stream, 1, 2, 1, nil, image(401))
	in.AddBlock(stream, 2, 3, 2, nil, image(400))
	in.AddBlock(stream, 3, 4, 3, nil, append(append(image(0), image(0)...), image(0)...))
	p := in.Build(t, viewOf(1000))
	if diff := cmp.Diff([]string{"600", "400"}, lines(p, "payload_size")); diff != "" {
		t.Error(diff)
	}
	if len(p.Quarantined) != 2 || p.Quarantined[0].Block != in.Blocks[1].ID || p.Quarantined[1].Block != in.Blocks[3].ID {
		t.Errorf("left out: %v", p.Quarantined)
	}
}
