package frozen

import "hash/crc32"

// Checksum is the checksum that the catalog keeps of a footer.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// SetGroupRows makes row groups shorter, so that a small file has several.
func (w *Writer) SetGroupRows(n int) { w.full = n }
