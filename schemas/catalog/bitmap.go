package catalog

import (
	"encoding/binary"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// ProcessBitmapBytes is the size of a partition's bitmap of processes (1,024 bits).
const ProcessBitmapBytes = 128

// ProcessBit is the bit of a process in a partition's bitmap, 0 to 1,023: bit i is bit i%8 of byte i/8. It is stored with
// the partitions, so it never changes.
func ProcessBit(id telemetry.ID) int {
	const golden = 0x9E3779B97F4A7C15 // 2^64 divided by the golden ratio spreads ids that differ in few bits
	h := (binary.LittleEndian.Uint64(id[0:8]) ^ binary.LittleEndian.Uint64(id[8:16])) * golden
	return int(h >> 54)
}
