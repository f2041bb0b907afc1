package engine

/*
#define _GNU_SOURCE
#include <errno.h>
#if defined(__GLIBC__) || __has_include(<malloc.h>)
#include <malloc.h>
#endif
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic long mm_mapped; // bytes that DuckDB's allocator has from the kernel; it keeps what it once had
static _Atomic long mm_limit;  // what it may have; 0 = all it wants

// mmap stands in front of the C library's for what is linked statically: the Go runtime, which never asks for
// memory without a reservation, and DuckDB's jemalloc, which does nothing else.
void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset) {
	int counts = (prot & PROT_WRITE) && (flags & MAP_ANONYMOUS) && (flags & MAP_NORESERVE);
	if (counts) {
		long now = atomic_fetch_add(&mm_mapped, (long)size) + (long)size;
		long limit = atomic_load(&mm_limit);
		if (limit != 0 && now > limit) {
			atomic_fetch_sub(&mm_mapped, (long)size);
			errno = ENOMEM;
			return MAP_FAILED;
		}
	}
	void *p = (void *)syscall(SYS_mmap, at, size, prot, flags, fd, offset);
	if (counts && p == MAP_FAILED) {
		atomic_fetch_sub(&mm_mapped, (long)size);
	}
	return p;
}

// The last word on jemalloc's settings: one pool of addresses, since it never gives any back and what lies in one pool
// cannot serve another; and no way round mmap.
const char *duckdb_je_malloc_conf_2_conf_harder = "narenas:1,oversize_threshold:0,dss:disabled";

extern int duckdb_je_mallctl(const char *, void *, size_t *, void *, size_t) __attribute__((weak));

// mm_purge gives unused pages of all arenas (4096 stands for all) back to the kernel, and joins their addresses.
static void mm_purge(void) {
	if (duckdb_je_mallctl) {
		duckdb_je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
	}
}

// mm_trim has the C library give its unused pages back.
static void mm_trim(void) {
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}

static void mm_set_limit(long limit) { atomic_store(&mm_limit, limit); }
*/
import "C"

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"sync"
)

// DuckDB's memory limit counts its buffers only: texts and lists that functions make come on top, without a bound. A
// statement of a line could ask for more memory than the machine has, in one step that no interrupt reaches. All of it
// comes from DuckDB's own allocator, so the bound is put between that and the kernel: what exceeds it fails with DuckDB's
// ordinary error for memory, and the statement with it. The allocator serves the whole process, and so does the bound:
// engines add up theirs.
var allocator struct {
	mu    sync.Mutex
	limit int64
}

// memorySlack is what the allocator may hold beside an engine's buffers: vectors, results, and addresses in pieces.
func memorySlack(limit int64) int64 { return limit/2 + 512<<20 }

// boundMemory lets the process's allocator have that many bytes more; a negative number takes them away again.
func boundMemory(bytes int64) {
	allocator.mu.Lock()
	defer allocator.mu.Unlock()
	allocator.limit += bytes
	C.mm_set_limit(C.long(allocator.limit))
}

// trimMemory gives unused memory of both allocators back to the kernel.
func trimMemory() {
	allocator.mu.Lock()
	defer allocator.mu.Unlock()
	C.mm_purge()
	C.mm_trim()
}

// heldOutsideGo returns the resident bytes of the process without those of Go's heap and runtime.
func heldOutsideGo() (int64, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, false
	}
	sizes := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sizes)
	return pages*int64(os.Getpagesize()) - int64(sizes[0].Value.Uint64()-sizes[1].Value.Uint64()), true
}
