package replica

// Stopping says whether somebody waits for the pair's pruning to end.
func (r *Replica) Stopping(name string) bool {
	p, err := r.known(name)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping > 0
}
