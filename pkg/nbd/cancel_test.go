package nbd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
)

func TestACancelledReadGivesItsBufferBackInTheMiddleOfThePayload(t *testing.T) {
	const length = 64 << 10
	goOn := make(chan struct{})
	c := dialScript(t, script{size: 1 << 20, structured: true, play: func(p *peer) {
		r, _ := p.request()
		whole := data(r, true, 0, length)
		p.send(whole[:length/2])
		<-goOn
		p.send(whole[length/2:])
		serveReads(true, nil)(p)
	}}, Config{})

	ctx, cancel := context.WithCancel(context.Background())
	p := make([]byte, length)
	result := make(chan error, 1)
	go func() { result <- c.ReadAt(ctx, p, 0) }()
	waitUntilFilling(t, c)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}
	mine := bytes.Repeat([]byte{0xAA}, length)
	copy(p, mine)
	close(goOn)

	// The rest of the cancelled payload lies before this reply.
	q := make([]byte, 4096)
	if err := c.ReadAt(context.Background(), q, 8192); err != nil || !bytes.Equal(q, content(8192, len(q))) {
		t.Errorf("the connection did not survive: %v", err)
	}
	if !bytes.Equal(p, mine) {
		t.Error("the buffer was written to after ReadAt had returned")
	}
}

// waitUntilFilling returns when the receiver is in the middle of somebody's buffer, which no event tells.
func waitUntilFilling(t *testing.T, c *Client) {
	t.Helper()
	for filling := false; !filling; runtime.Gosched() {
		c.handover.mu.Lock()
		filling = c.handover.filling != nil
		c.handover.mu.Unlock()
	}
}

func TestACancelledReadThatWasNotAnsweredYetIsDrained(t *testing.T) {
	asked, goOn := make(chan struct{}), make(chan struct{})
	c := dialScript(t, script{size: 1 << 20, structured: true, play: func(p *peer) {
		r, _ := p.request()
		close(asked)
		<-goOn
		p.send(data(r, false, 0, 50000), hole(r, true, 50000, 50000))
		serveReads(true, nil)(p)
	}}, Config{InFlightMax: 1})

	ctx, cancel := context.WithCancel(context.Background())
	p := bytes.Repeat([]byte{0xAA}, 100000)
	result := make(chan error, 1)
	go func() { result <- c.ReadAt(ctx, p, 0) }()
	<-asked
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}

	// The only slot is still the server's: who waits for it can be cancelled too.
	waiting, stop := context.WithCancel(context.Background())
	go func() { result <- c.ReadAt(waiting, make([]byte, 1), 0) }()
	stop()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}

	close(goOn)
	q := make([]byte, 4096)
	if err := c.ReadAt(context.Background(), q, 512); err != nil || !bytes.Equal(q, content(512, len(q))) {
		t.Errorf("the connection did not survive: %v", err)
	}
	if !bytes.Equal(p, bytes.Repeat([]byte{0xAA}, 100000)) {
		t.Error("the buffer was written to after ReadAt had returned")
	}
}

func TestNothingHangsOnAServerThatDoesNotReadItsSocket(t *testing.T) {
	// A pipe without any buffer: the first request is stuck in the middle of being sent.
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	c := prepareClient(near, export{size: 1 << 20, structured: true, minBlock: 1, maxBlock: maxBlockDefault}, 2)
	c.run()

	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 2)
	go func() { result <- c.ReadAt(ctx, make([]byte, 100), 0) }()
	if _, err := far.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	go func() { result <- c.ReadAt(context.Background(), make([]byte, 100), 0) }()
	_ = c.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}
