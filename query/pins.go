package query

import "sync"

// pins knows the commit numbers that running queries read at. Files that were live at the oldest of them must stay.
type pins struct {
	mu   sync.Mutex
	held map[int64]int // commit number → queries
}

// hold pins a commit number until the returned function is called.
func (p *pins) hold(commitNo int64) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[int64]int)
	}
	p.held[commitNo]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.held[commitNo]--; p.held[commitNo] == 0 {
			delete(p.held, commitNo)
		}
	})
}

// oldest returns the least pinned commit number, or false when no query runs.
func (p *pins) oldest() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	least, any := int64(0), false
	for no := range p.held {
		if !any || no < least {
			least, any = no, true
		}
	}
	return least, any
}
