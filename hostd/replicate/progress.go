package replicate

import (
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// progress counts the bytes of one job. Many goroutines may count at once.
type progress struct {
	done, total, sent atomic.Int64
	// moved counts everything that shows life, so that standing still can be told from being slow.
	moved atomic.Int64
}

func (p *progress) addDone(bytes int64) {
	p.done.Add(bytes)
	p.moved.Add(1)
}

// meter tells a rate from the last samplesMax readings of a counter.
type meter struct{ samples []sample }

type sample struct {
	at   time.Time
	done int64
}

const samplesMax = 10

// read takes a reading and returns the rate in bytes per second, 0 while it cannot be told.
func (m *meter) read(now time.Time, done int64) int64 {
	if n := len(m.samples); n > 0 && done < m.samples[n-1].done {
		m.samples = nil // another job counts from 0
	}
	m.samples = append(m.samples, sample{now, done})
	if len(m.samples) > samplesMax {
		m.samples = m.samples[1:]
	}
	first := m.samples[0]
	elapsed := now.Sub(first.at)
	if elapsed <= 0 {
		return 0
	}
	return int64(float64(done-first.done) / elapsed.Seconds())
}

func (p *progress) message(rate int64) *umbrav1.Progress {
	m := &umbrav1.Progress{
		DoneBytes: p.done.Load(), TotalBytes: p.total.Load(), SentBytes: p.sent.Load(), BytesPerSecond: rate,
	}
	if left := m.TotalBytes - m.DoneBytes; left >= 0 && rate > 0 {
		m.TimeLeft = durationpb.New(time.Duration(float64(left) / float64(rate) * float64(time.Second)))
	}
	return m
}
