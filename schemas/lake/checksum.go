package lake

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
)

// ErrDamaged says that the bytes of an object are not those that were written under its key.
var ErrDamaged = errors.New("object is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcOf is the checksum of keys, packs and copies.
func crcOf(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

// fileCRC reads a file through.
func fileCRC(path string) (uint32, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return readCRC(file)
}

func readCRC(r io.Reader) (uint32, error) {
	h := crc32.New(castagnoli)
	_, err := io.Copy(h, r)
	return h.Sum32(), err
}

// keyCRC returns the checksum that the key of a view's file ends with. Keys of packs have none (a pack has its own), nor have those that were
// made before keys had any.
func keyCRC(key string) (crc uint32, ok bool) {
	name, ok := strings.CutSuffix(key, viewSuffix)
	if !ok {
		return 0, false
	}
	const digits = 8 // the last part of a UUID has 12
	at := strings.LastIndexByte(name, '-')
	if len(name)-at-1 != digits {
		return 0, false
	}
	n, err := strconv.ParseUint(name[at+1:], 16, 32)
	return uint32(n), err == nil
}

// checkCRC compares the checksum of an object's bytes with the one in its key.
func checkCRC(key string, crc uint32) error {
	if want, ok := keyCRC(key); ok && crc != want {
		return fmt.Errorf("checksum is %08x, not %08x: %w", crc, want, ErrDamaged)
	}
	return nil
}

// checkData is checkCRC for bytes whose checksum nobody needs otherwise.
func checkData(key string, data []byte) error {
	if _, ok := keyCRC(key); !ok {
		return nil
	}
	return checkCRC(key, crcOf(data))
}
