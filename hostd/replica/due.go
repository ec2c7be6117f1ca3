package replica

import "sync"

// duePairs is the set of pairs that are to be looked at soon.
type duePairs struct {
	news chan struct{} // of size 1: the set is not empty
	set  *dueSet
}

type dueSet struct {
	mu    sync.Mutex
	pairs map[*pair]bool
}

func newDuePairs() duePairs {
	return duePairs{news: make(chan struct{}, 1), set: &dueSet{pairs: map[*pair]bool{}}}
}

func (d duePairs) add(p *pair) {
	d.set.mu.Lock()
	d.set.pairs[p] = true
	d.set.mu.Unlock()
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// take empties the set.
func (d duePairs) take() []*pair {
	d.set.mu.Lock()
	defer d.set.mu.Unlock()
	var out []*pair
	for p := range d.set.pairs {
		out = append(out, p)
	}
	clear(d.set.pairs)
	return out
}
