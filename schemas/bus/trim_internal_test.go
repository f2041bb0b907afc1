package bus

import (
	"testing"
)

// state is a stream that holds the frames first..last of size bytes each.
func state(first, last uint64, size int64) streamState {
	n := int64(last - first + 1)
	return streamState{FirstSeq: first, LastSeq: last, Msgs: n, Bytes: n * (size + messageOverhead)}
}

// checkSteps says that steps purge up to about keep bytes of what is archived, and never more than a step at once.
func checkSteps(t *testing.T, steps []uint64, st streamState, archived uint64, keep, size int64) {
	t.Helper()
	first := st.FirstSeq
	for _, s := range steps {
		if s <= first || s > archived+1 {
			t.Fatalf("step to %d from %d, archived up to %d", s, first, archived)
		}
		if purged := int64(s-first) * (size + messageOverhead); purged > trimStep+markBytes+size {
			t.Errorf("step %d..%d purges %d bytes", first, s, purged)
		}
		first = s
	}
	kept := int64(archived-first+1) * (size + messageOverhead)
	if kept < keep || kept > keep+trimStep+2*markBytes {
		t.Errorf("%d bytes of archived frames stay, want about %d", kept, keep)
	}
}

func TestTrimKeepsWhatItShallInSmallSteps(t *testing.T) {
	const frames = 400
	for _, size := range []int64{100, 5_000, 300_000, 1 << 20} {
		count := uint64(frames)
		if size < 10_000 {
			count = 100_000
		}
		st := state(1, count, size)
		for _, keep := range []int64{0, 20 << 20} {
			if st.Bytes < keep+trimStep {
				continue
			}
			var read, unread trimmer
			for seq := uint64(1); seq <= count; seq++ {
				read.note(seq, int(size))
			}
			checkSteps(t, read.steps(st, count, keep), st, count, keep, size)
			checkSteps(t, unread.steps(st, count, keep), st, count, keep, size)

			var half trimmer // began to read in the middle
			for seq := count / 2; seq <= count-10; seq++ {
				half.note(seq, int(size))
			}
			if archived := count * 9 / 10; int64(archived)*size > keep+2*trimStep {
				checkSteps(t, half.steps(st, archived, keep), st, archived, keep, size)
			}
		}
	}
}

func TestTrimLeavesWhatIsNotArchived(t *testing.T) {
	st := state(100, 500, 1<<20)
	var tr trimmer
	for seq := uint64(100); seq <= 500; seq++ {
		tr.note(seq, 1<<20)
	}
	if steps := tr.steps(st, 99, 0); len(steps) != 0 {
		t.Errorf("nothing is archived, but steps %v", steps)
	}
	steps := tr.steps(st, 120, 0)
	if len(steps) == 0 || steps[len(steps)-1] != 121 {
		t.Errorf("archived up to 120, steps %v", steps)
	}
	if steps := tr.steps(st, 500, 1<<40); len(steps) != 0 {
		t.Errorf("everything is to be kept, but steps %v", steps)
	}
}

func TestTrimLeavesTheLastFrame(t *testing.T) {
	for _, last := range []uint64{0, 99, 100, 101, 102, 500} { // below first: empty
		st := state(100, last, 1<<20)
		if last < 100 {
			st.Msgs, st.Bytes = 0, 0
		}
		var tr trimmer
		for seq := uint64(100); seq <= last; seq++ {
			tr.note(seq, 1<<20)
		}
		steps := tr.steps(st, last, 0)
		if last <= 100 {
			if len(steps) != 0 {
				t.Errorf("frames 100..%d: steps %v, want none", last, steps)
			}
			continue
		}
		if len(steps) == 0 || steps[len(steps)-1] != last {
			t.Errorf("frames 100..%d, all of them archived: steps %v, want the last one at %d", last, steps, last)
		}
	}
}

func TestTrimmerNotesOneReaderOfSeveral(t *testing.T) {
	var tr trimmer
	for seq := uint64(10); seq < 20; seq++ {
		tr.note(seq, 1000)
		tr.note(seq, 1000) // a second reader, at the same place
	}
	var bytes int64
	for _, m := range tr.marks {
		bytes += m.bytes
	}
	if want := int64(10 * (1000 + messageOverhead)); bytes != want {
		t.Errorf("%d bytes noted, want %d", bytes, want)
	}
}
