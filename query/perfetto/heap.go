package perfetto

import "cmp"

// laneKey is a lane in a heap.
type laneKey struct {
	key  int64
	lane int32
}

func (k laneKey) compare(other laneKey) int {
	return cmp.Or(cmp.Compare(k.key, other.key), cmp.Compare(k.lane, other.lane))
}

// laneHeap is a binary heap whose first element is the least by key and, of equal ones, by number. container/heap
// would allocate for each element.
type laneHeap []laneKey

func (h *laneHeap) push(k laneKey) {
	*h = append(*h, k)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].compare(s[i]) <= 0 {
			return
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *laneHeap) pop() laneKey {
	s := *h
	least, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(s) {
			return least
		}
		if right := down + 1; right < len(s) && s[right].compare(s[down]) < 0 {
			down = right
		}
		if s[i].compare(s[down]) <= 0 {
			return least
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
}
