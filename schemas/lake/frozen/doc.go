// Package frozen is the Parquet file of block rows whose day is long over; LAYOUT.md of schemas/lake describes it.
// Written by workers/freezer, which moves the rows out of the catalog; read by workers/archive, which looks for duplicates in it,
// by whoever needs a stream's blocks of a time, and, as any Parquet file, by query's engine.
//
// Invariants: rows rise strictly by stream, begin time and block id. The catalog keeps a checksum of the footer, and the footer
// keeps one of every column of every row group, so that a Reader answers right or with an error, never from damaged bytes.
//
// Know first: this package, not schemas/lake, brings the Parquet library along; the gateway has no need of it.
package frozen

import (
	"errors"
	"hash/crc32"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// Version is the version of the layout, in catalog.Partition.SchemaVer and in the footer.
const Version = 1

// Bounds of files.
const (
	// FileRows is where a file is best cut: some 40 MB, which a writer holds in memory.
	FileRows = 1 << 20
	// GroupRows is the length of a row group: what a look-up reads of one, its keys, is 1.5 MB.
	GroupRows = 64 << 10
	// maxGroups bounds what a reader believes of a footer.
	maxGroups = 1 << 12
)

// ErrDamaged says that an object is not what the catalog and its checksums say.
var ErrDamaged = errors.New("frozen file is damaged")

// metaKey names the index in the footer's key-value metadata.
const metaKey = "micromegas.frozen"

// index is the JSON value of metaKey.
type index struct {
	Version int          `json:"version"`
	Groups  []indexGroup `json:"groups"`
}

// indexGroup is what the index says of a row group.
type indexGroup struct {
	First    indexKey `json:"first"`
	Last     indexKey `json:"last"`
	MinBegin int64    `json:"min_begin"`
	MaxBegin int64    `json:"max_begin"`
	MaxEnd   int64    `json:"max_end"`
	CRC      []uint32 `json:"crc"` // CRC-32C of the column chunks, in order
}

type indexKey struct {
	Stream string `json:"stream"`
	Begin  int64  `json:"begin"`
	Block  string `json:"block"`
}

func indexKeyOf(k catalog.BlockKey) indexKey {
	return indexKey{k.StreamID.String(), k.BeginTime, k.BlockID.String()}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The columns, in the file's order: the key first, since look-ups read nothing else. Those that table blocks has too have its
// names and types.
const (
	colStream = iota
	colBegin
	colBlock
	colProcess
	colBeginTicks
	colEnd
	colEndTicks
	colNbObjects
	colObjectOffset
	colPayloadSize
	colInsert
	colPackKey
	colPackOffset
	colPackLength
	colClass
	colGeneration
	colShard
	colPackSeq
	numColumns

	numKeyColumns = colBlock + 1
)

// kind is how a column is stored.
type kind int

const (
	plainText kind = iota // PLAIN: values hardly repeat
	dictText
	timestamp // ns, DELTA_BINARY_PACKED
	wide      // 64 bits, DELTA_BINARY_PACKED
	narrow    // 32 bits, dictionary
)

var columns = [numColumns]struct {
	name string
	kind kind
}{
	colStream:       {"stream_id", dictText},
	colBegin:        {"begin_time", timestamp},
	colBlock:        {"block_id", plainText},
	colProcess:      {"process_id", dictText},
	colBeginTicks:   {"begin_ticks", wide},
	colEnd:          {"end_time", timestamp},
	colEndTicks:     {"end_ticks", wide},
	colNbObjects:    {"nb_objects", narrow},
	colObjectOffset: {"object_offset", wide},
	colPayloadSize:  {"payload_size", wide},
	colInsert:       {"insert_time", timestamp},
	colPackKey:      {"pack_key", dictText},
	colPackOffset:   {"pack_offset", wide},
	colPackLength:   {"pack_length", wide},
	colClass:        {"class", dictText},
	colGeneration:   {"generation", narrow},
	colShard:        {"shard", narrow},
	colPackSeq:      {"pack_seq", wide},
}

// node returns the schema of a column.
func (k kind) node(name string) (schema.Node, error) {
	physical, logical := parquet.Types.ByteArray, schema.LogicalType(schema.StringLogicalType{})
	switch k {
	case timestamp:
		physical, logical = parquet.Types.Int64, schema.NewTimestampLogicalType(false, schema.TimeUnitNanos)
	case wide:
		physical, logical = parquet.Types.Int64, schema.NewIntLogicalType(64, true)
	case narrow:
		physical, logical = parquet.Types.Int32, schema.NewIntLogicalType(32, true)
	case plainText, dictText:
	}
	return schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Required, logical, physical, -1, -1)
}

// fileSchema returns the schema of a file.
func fileSchema() (*schema.GroupNode, error) {
	fields := make(schema.FieldList, numColumns)
	for i, c := range columns {
		var err error
		if fields[i], err = c.kind.node(c.name); err != nil {
			return nil, err
		}
	}
	return schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
}
