//go:build (amd64 || arm64) && !race && !micromegas_plain

package sdk

import _ "unsafe" // for go:linkname

// Events are written without a lock: while a goroutine is pinned to its P, nothing else runs on that P, so the P's lane has one writer.
// The runtime keeps the two functions for the packages that link to them (go.dev/issue/67401); package sync pins in the same
// way. The build tag micromegas_plain, the race detector and other machines take a mutex instead, see plain.go.

// littleEndian says that the bytes of a text lie in a word from the lowest.
const littleEndian = true

// procPin keeps the goroutine on its P, not preempted, until procUnpin. In between it must not block.
//
//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

//go:linkname nanotime runtime.nanotime
func nanotime() int64

// pin returns the lane to write to; the caller must unpin it soon. A P with a number beyond all lanes gets noLane.
//
// The switch is for speed. The P's number is at the end of three loads; to load from an address computed from it, and again behind that, makes
// a chain that RDTSC waits for. A jump is predicted, and the address behind it is a constant: that was worth 3 of 16 ns an event.
func pin() *lane {
	p := procPin()
	switch p {
	case 0:
		return &lanes[0]
	case 1:
		return &lanes[1]
	case 2:
		return &lanes[2]
	case 3:
		return &lanes[3]
	case 4:
		return &lanes[4]
	case 5:
		return &lanes[5]
	case 6:
		return &lanes[6]
	case 7:
		return &lanes[7]
	case 8:
		return &lanes[8]
	case 9:
		return &lanes[9]
	case 10:
		return &lanes[10]
	case 11:
		return &lanes[11]
	case 12:
		return &lanes[12]
	case 13:
		return &lanes[13]
	case 14:
		return &lanes[14]
	case 15:
		return &lanes[15]
	case 16:
		return &lanes[16]
	case 17:
		return &lanes[17]
	case 18:
		return &lanes[18]
	case 19:
		return &lanes[19]
	case 20:
		return &lanes[20]
	case 21:
		return &lanes[21]
	case 22:
		return &lanes[22]
	case 23:
		return &lanes[23]
	case 24:
		return &lanes[24]
	case 25:
		return &lanes[25]
	case 26:
		return &lanes[26]
	case 27:
		return &lanes[27]
	case 28:
		return &lanes[28]
	case 29:
		return &lanes[29]
	case 30:
		return &lanes[30]
	case 31:
		return &lanes[31]
	case 32:
		return &lanes[32]
	case 33:
		return &lanes[33]
	case 34:
		return &lanes[34]
	case 35:
		return &lanes[35]
	case 36:
		return &lanes[36]
	case 37:
		return &lanes[37]
	case 38:
		return &lanes[38]
	case 39:
		return &lanes[39]
	case 40:
		return &lanes[40]
	case 41:
		return &lanes[41]
	case 42:
		return &lanes[42]
	case 43:
		return &lanes[43]
	case 44:
		return &lanes[44]
	case 45:
		return &lanes[45]
	case 46:
		return &lanes[46]
	case 47:
		return &lanes[47]
	case 48:
		return &lanes[48]
	case 49:
		return &lanes[49]
	case 50:
		return &lanes[50]
	case 51:
		return &lanes[51]
	case 52:
		return &lanes[52]
	case 53:
		return &lanes[53]
	case 54:
		return &lanes[54]
	case 55:
		return &lanes[55]
	case 56:
		return &lanes[56]
	case 57:
		return &lanes[57]
	case 58:
		return &lanes[58]
	case 59:
		return &lanes[59]
	case 60:
		return &lanes[60]
	case 61:
		return &lanes[61]
	case 62:
		return &lanes[62]
	case 63:
		return &lanes[63]
	}
	if uint(p) >= maxLanes {
		return &noLane
	}
	return &lanes[p]
}

// unpin releases a lane.
func (*lane) unpin() { procUnpin() }

// add adds to a cell of a lane that the caller has pinned. Readers load the cell atomically: an aligned word is written whole.
func (c *cell) add(n uint64) { c.n += n }
