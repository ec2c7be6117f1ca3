package landscape

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// Announcements are the records that a server said it had flushed, each with the moment at which that was seen. It is
// safe for concurrent use. The server's disks are never taken back, so the numbers only rise.
type Announcements struct {
	mu   sync.Mutex
	seen []announcement
}

type announcement struct {
	at   time.Time
	last uint64
}

// By is the last record that had been seen by then.
func (a *Announcements) By(then time.Time) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var last uint64
	for _, entry := range a.seen {
		if entry.at.After(then) {
			break
		}
		last = entry.last
	}
	return last
}

func (a *Announcements) take(line string) {
	var number uint64
	if _, err := fmt.Sscanf(line, ledger.Prefix+"record %d", &number); err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, announcement{time.Now(), number})
}

// FollowAnnouncements notes what the console announces until stop is called, which waits for the end.
func FollowAnnouncements(ctx context.Context, log *console.Console) (a *Announcements, stop func()) {
	a = &Announcements{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = log.Follow(ctx, &lines{each: a.take}) // ends with the context
	}()
	return a, func() { cancel(); <-done }
}

// lines hands each complete line that is written to it on.
type lines struct {
	pending bytes.Buffer
	each    func(string)
}

func (l *lines) Write(p []byte) (int, error) {
	l.pending.Write(p)
	for {
		line, err := l.pending.ReadString('\n')
		if err != nil {
			l.pending.Reset()
			l.pending.WriteString(line)
			return len(p), nil
		}
		l.each(strings.TrimRight(line, "\r\n"))
	}
}
