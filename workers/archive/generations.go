package archive

import (
	"context"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// Generations lets the bus keep its generations in the catalog.
type Generations struct{ Catalog catalog.Catalog }

var _ bus.GenerationStore = Generations{}

// Generations implements bus.GenerationStore.
func (g Generations) Generations(ctx context.Context) ([]bus.Generation, error) {
	rows, err := g.Catalog.Generations(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]bus.Generation, 0, len(rows))
	for _, r := range rows {
		all = append(all, bus.Generation{
			Shard: bus.Shard{Class: bus.Class(r.Class), Shard: r.Shard}, Gen: r.Gen, Stream: r.Stream, Created: r.Created, FirstSeq: r.FirstSeq,
		})
	}
	return all, nil
}

// OpenGeneration implements bus.GenerationStore.
func (g Generations) OpenGeneration(ctx context.Context, b bus.Generation) error {
	return g.Catalog.OpenGeneration(ctx, catalog.Generation{
		ShardID: shardID(b.Shard, b.Gen), Stream: b.Stream, Created: b.Created, FirstSeq: b.FirstSeq,
	})
}

// ArchiveSeq implements bus.GenerationStore.
func (g Generations) ArchiveSeq(ctx context.Context, s bus.Shard, gen int32) (uint64, error) {
	c, err := g.Catalog.Checkpoint(ctx, catalog.ConsumerArchive, shardID(s, gen))
	if err != nil || c.Epoch == 0 { // never moved
		return 0, err
	}
	return c.Seq, nil
}

func shardID(s bus.Shard, gen int32) catalog.ShardID {
	return catalog.ShardID{Class: byte(s.Class), Gen: gen, Shard: s.Shard}
}
