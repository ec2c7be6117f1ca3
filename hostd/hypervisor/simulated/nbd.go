package simulated

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// export is what one disk of a job looks like to readers.
type export struct {
	image   *image
	context string // "" when nothing is told of changes
	dirty   bitmap
}

// nbdServer serves a job's exports, read-only, to any number of readers.
type nbdServer struct {
	listener net.Listener
	exports  map[string]export
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
}

func serve(socket string, exports map[string]export) (*nbdServer, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("serve the backup job: %w", err)
	}
	s := &nbdServer{listener: listener, exports: exports, conns: map[net.Conn]bool{}}
	s.running.Go(s.accept)
	return s, nil
}

func (s *nbdServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.add(conn) {
			_ = conn.Close()
			return
		}
		s.running.Go(func() {
			defer s.remove(conn)
			reader := &session{conn: conn, exports: s.exports}
			// A reader that goes away or speaks nonsense is its own trouble.
			_ = reader.run()
		})
	}
}

func (s *nbdServer) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[conn] = true
	}
	return !s.closed
}

func (s *nbdServer) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	_ = conn.Close()
}

// close ends all readers and waits for them.
func (s *nbdServer) close() {
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	_ = s.listener.Close()
	s.running.Wait()
}

var errProtocol = errors.New("the reader does not speak NBD as expected")
