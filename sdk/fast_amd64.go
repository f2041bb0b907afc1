//go:build !race && !micromegas_plain

package sdk

// ticks reads the clock that events carry; its unit is found by calibration, see clock. It is in assembly as a whole: a call saved is a
// nanosecond.
func ticks() int64

// slowTicks is ticks where hasTSC is false.
//
//nolint:unused // by fast_amd64.s
func slowTicks() int64 { return nanotime() }

//nolint:unused // below, for fast_amd64.s
func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)

// hasTSC says that the time-stamp counter runs at one rate whatever the power state, and so serves as a clock: CPUID leaf
// 80000007h, EDX bit 8 (Intel SDM vol. 2A, AMD APM vol. 3). Kernels keep the counters of all cores together.
//
//nolint:unused // by fast_amd64.s
var hasTSC = func() bool {
	const leaf, bit = 0x80000007, 1 << 8
	if highest, _, _, _ := cpuid(0x80000000); highest < leaf {
		return false
	}
	_, _, _, edx := cpuid(leaf)
	return edx&bit != 0
}()

// publish lets the reader see the words before n. The reader loads filled atomically; the plain store is enough on this machine, whose
// stores become visible in the order of the program (Intel SDM vol. 3A §9.2), and the compiler keeps the order of stores. An atomic one
// is an XCHG here, which costs as much as the rest of the event.
func (c *chunk) publish(n int) { c.filled = int64(n) }
