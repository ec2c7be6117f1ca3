package shadowserver

import (
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func TestACopyMakesWayForAServerAtWorkAndForNoOther(t *testing.T) {
	const speed = 400 << 20
	for name, c := range map[string]struct {
		costMax float64
		speed   int64   // bytes a second without a limit
		rates   []int64 // requests of each second
		want    []int64 // limit after it
	}{
		"at work":                 {0.1, speed, []int64{500, 500, 500}, []int64{speed / 10, speed / 10, speed / 10}},
		"next to nothing":         {0.1, speed, []int64{9, 0, 9}, []int64{0, 0, 0}},
		"work that begins, ends":  {0.1, speed, []int64{0, 500, 0, 500}, []int64{0, speed / 10, 0, speed / 10}},
		"a slow disk":             {0.1, 20 << 20, []int64{500, 500}, []int64{copyLimitMin, copyLimitMin}},
		"not to be spared at all": {1, speed, []int64{500, 500}, []int64{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sparing{costMax: c.costMax}
			now, done, io := time.Unix(1, 0), int64(5<<20), hypervisor.IOCounters{Requests: 7}
			s.look(now, done, io)
			for i, rate := range c.rates {
				now, io.Requests = now.Add(time.Second), io.Requests+rate
				if s.limit == 0 {
					done += c.speed
				} else {
					done += s.limit
				}
				if limit := s.look(now.Add(-time.Millisecond), done, io); limit != s.limit {
					t.Errorf("second %d: the limit changes before it is over", i)
				}
				if s.limit = s.look(now, done, io); s.limit != c.want[i] {
					t.Errorf("second %d: limit %d, want %d", i, s.limit, c.want[i])
				}
			}
		})
	}
}
