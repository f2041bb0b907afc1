package wire

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH32.
const (
	prime1 uint32 = 2654435761
	prime2 uint32 = 2246822519
	prime3 uint32 = 3266489917
	prime4 uint32 = 668265263
	prime5 uint32 = 374761393
)

// xxh32 is the XXH32 hash with seed 0, the checksum of LZ4 frames.
func xxh32(b []byte) uint32 { return xxh32Seed(b, 0) }

// xxh32Seed is the XXH32 hash.
func xxh32Seed(b []byte, seed uint32) uint32 {
	n := uint32(len(b))
	h := seed + prime5
	if len(b) >= 16 {
		p := prime1 // a variable, so that the sums below may wrap
		v1, v2, v3, v4 := seed+p+prime2, seed+prime2, seed, seed-p
		for len(b) >= 16 {
			v1 = xxhRound(v1, binary.LittleEndian.Uint32(b[0:4]))
			v2 = xxhRound(v2, binary.LittleEndian.Uint32(b[4:8]))
			v3 = xxhRound(v3, binary.LittleEndian.Uint32(b[8:12]))
			v4 = xxhRound(v4, binary.LittleEndian.Uint32(b[12:16]))
			b = b[16:]
		}
		h = bits.RotateLeft32(v1, 1) + bits.RotateLeft32(v2, 7) + bits.RotateLeft32(v3, 12) + bits.RotateLeft32(v4, 18)
	}
	h += n
	for ; len(b) >= 4; b = b[4:] {
		h += binary.LittleEndian.Uint32(b) * prime3
		h = bits.RotateLeft32(h, 17) * prime4
	}
	for _, c := range b {
		h += uint32(c) * prime5
		h = bits.RotateLeft32(h, 11) * prime1
	}
	h ^= h >> 15
	h *= prime2
	h ^= h >> 13
	h *= prime3
	return h ^ h>>16
}

func xxhRound(acc, lane uint32) uint32 {
	return bits.RotateLeft32(acc+lane*prime2, 13) * prime1
}
