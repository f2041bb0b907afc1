package demo

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheSameSeedPlaysTheSame draws from equal and from other seeds.
func TestTheSameSeedPlaysTheSame(t *testing.T) {
	plan := func(seed uint64) (all []string, slow, failed, hitches int) {
		p, f := newPlanner(seed), newFrames(seed)
		for range 2000 {
			q, after := p.next()
			s := fmt.Sprint(q.number, q.route.name, q.player, q.authorize, q.queries, q.render, q.failure, after)
			if q.failure != "" {
				failed++
			}
			if q.duration() > slowRequest {
				slow++
			}
			n := f.next()
			if n.ms >= hitchMs {
				hitches++
			}
			all = append(all, s, fmt.Sprint(n))
		}
		return all, slow, failed, hitches
	}
	a, slow, failed, hitches := plan(1)
	b, _, _, _ := plan(1)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
	if c, _, _, _ := plan(2); cmp.Equal(a, c) {
		t.Error("another seed plays the same")
	}
	if slow == 0 || failed == 0 || hitches == 0 || slow > 100 || failed > 200 || hitches > 50 {
		t.Errorf("%d slow, %d failed, %d hitches", slow, failed, hitches)
	}
}
