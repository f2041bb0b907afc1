package materializers

import (
	"context"
	"sync"
	"time"
)

// maxYield bounds one pause of a worker on the backlog. A block takes about as long, so that under steady load the backlog keeps a
// third of its pace.
const maxYield = 5 * time.Millisecond

// priority lets workers on the backlog step back while owners of the same process have fresh frames or a flush at hand. The zero
// value is ready to use.
type priority struct {
	mu   sync.Mutex
	busy int
	idle chan struct{} // closed when busy falls to 0; set while it is not
}

func (p *priority) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy == 0 {
		p.idle = make(chan struct{})
	}
	p.busy++
}

func (p *priority) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if p.busy == 0 {
		close(p.idle)
	}
}

// yield waits while an owner is busy, for maxYield at most.
func (p *priority) yield(ctx context.Context) {
	p.mu.Lock()
	busy, idle := p.busy, p.idle
	p.mu.Unlock()
	if busy == 0 {
		return
	}
	timer := time.NewTimer(maxYield)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-ctx.Done():
	}
}
