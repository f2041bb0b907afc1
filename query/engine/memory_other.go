//go:build !linux

package engine

// DuckDB for other systems uses their allocator, which cannot be bounded from here.

func memorySlack(int64) int64 { return 0 }

func boundMemory(int64) {}

func trimMemory() {}

func heldOutsideGo() (int64, bool) { return 0, false }
