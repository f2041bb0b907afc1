package materializers_test

import (
	"sync"
	"testing"
)

// A flood of blocks that cannot be built does not hold up the others by a synced letter for each; the catalog has them all.
func TestDeadLettersOfACommitAreBounded(t *testing.T) {
	e := newEnv(t)
	s := newScenario(e)
	s.register(0)
	const flood = 1100
	frame := make(chan struct{}, 64) // so many share a frame
	var posts sync.WaitGroup
	for range flood {
		frame <- struct{}{}
		posts.Go(func() {
			s.makers[0].postLog(e, s.makers[0].block(s.makers[0].logs.ID, 1, 0, nil, []byte{200, 1, 2, 3}))
			<-frame
		})
	}
	posts.Wait()
	e.startArchive()
	e.archived()
	e.startViews(config())
	e.flush()
	e.eventually("a commit", func() bool { dead, _ := e.parkedRows(); return dead == flood })
	letters, err := e.bus.ReadDeadLetters(t.Context(), 2*flood)
	if err != nil || len(letters) == 0 || len(letters) == flood {
		t.Errorf("%d letters, %v", len(letters), err)
	}
}
