package session

import "context"

// router tells sessions that their assignments may have changed: those of the two hosts of a changed pair, and
// nobody else, so that a change costs the same however many hosts are connected. It belongs to Run.
type router struct {
	server    *Server
	parties   map[string]parties // of each pair, as last seen: a pair that is gone is looked up here
	addresses map[string]string
}

type parties struct{ main, shadow string }

// Run makes changes of records known to the hosts' sessions until the context ends. Then it ends all sessions and
// waits for them; it serves once.
func (s *Server) Run(ctx context.Context) error {
	records, hosts := s.Records.Feed().Subscribe(), s.Observed.Connections().Subscribe()
	defer records.Close()
	defer hosts.Close()
	select {
	case <-s.Records.Ready():
	case <-ctx.Done():
		return nil
	}
	route := &router{server: s, parties: map[string]parties{}, addresses: map[string]string{}}
	for _, entry := range s.Records.List() {
		p := entry.Record.Pair
		route.parties[p.ID] = parties{main: p.Main.Host, shadow: p.Shadow.Host}
	}
	s.setOpen(true)
	defer s.shut()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-records.C():
			for _, pair := range records.Take() {
				route.pair(pair)
			}
		case <-hosts.C():
			for _, host := range hosts.Take() {
				route.host(host)
			}
		}
	}
}

func (s *Server) setOpen(open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = open
}

func (s *Server) shut() {
	s.setOpen(false)
	close(s.stopping)
	s.work.Wait()
}

func (r *router) pair(id string) {
	if before, known := r.parties[id]; known {
		r.wake(before.main)
		r.wake(before.shadow)
	}
	entry, ok := r.server.Records.Get(id)
	if !ok {
		delete(r.parties, id)
		return
	}
	p := entry.Record.Pair
	now := parties{main: p.Main.Host, shadow: p.Shadow.Host}
	if r.parties[id] != now {
		r.parties[id] = now
		r.wake(now.main)
		r.wake(now.shadow)
	}
}

// host tells the main hosts whose replication goes to this host when it is reached at another address.
func (r *router) host(id string) {
	address := r.server.dataAddress(id)
	if r.addresses[id] == address {
		return
	}
	r.addresses[id] = address
	for _, entry := range r.server.Records.ByHost(id) {
		if p := entry.Record.Pair; p.Shadow.Host == id {
			r.wake(p.Main.Host)
		}
	}
}

func (r *router) wake(host string) { r.server.wake(host) }

func (s *Server) wake(host string) {
	session := s.session(host)
	if session == nil {
		return
	}
	select {
	case session.wake <- struct{}{}:
	default:
	}
}

// PeerChanged tells the hosts that have pairs with this one that other certificates of it count now.
func (s *Server) PeerChanged(host string) {
	for _, entry := range s.Records.ByHost(host) {
		s.wake(entry.Record.Pair.Main.Host)
		s.wake(entry.Record.Pair.Shadow.Host)
	}
}

func (s *Server) peer(host string) peer {
	return peer{address: s.dataAddress(host), least: s.Least(host)}
}

func (s *Server) dataAddress(host string) string {
	known, _ := s.Observed.Host(host)
	return known.Inventory.GetDataAddress()
}
