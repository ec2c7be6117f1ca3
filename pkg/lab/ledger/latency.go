package ledger

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// latencySteps is how many steps the duration of a write is told apart in between 1 and 2 times a duration: each is 4 % longer than
// the one before.
const latencySteps = 16

// Latencies count how long writes took. The key is a step on a scale of logarithms, from 1 microsecond on.
type Latencies map[int]uint64

// Add counts a write.
func (l Latencies) Add(took time.Duration) {
	l[int(math.Round(latencySteps*math.Log2(max(1, float64(took)/float64(time.Microsecond)))))]++
}

// Merge adds what other has counted.
func (l Latencies) Merge(other Latencies) {
	for step, count := range other {
		l[step] += count
	}
}

// Count is the number of writes.
func (l Latencies) Count() (sum uint64) {
	for _, count := range l {
		sum += count
	}
	return sum
}

// Quantile is the duration that the share q of the writes took at most, give or take half a step; 0 when there are none.
func (l Latencies) Quantile(q float64) time.Duration {
	left := uint64(math.Ceil(q * float64(l.Count())))
	for _, step := range slices.Sorted(maps.Keys(l)) {
		if l[step] >= left {
			return time.Duration(math.Exp2(float64(step)/latencySteps) * float64(time.Microsecond))
		}
		left -= l[step]
	}
	return 0
}

const latencyWord = "took"

// Line is what a guest that measures its writes prints every second.
func (l Latencies) Line() string {
	var line strings.Builder
	line.WriteString(Prefix + latencyWord)
	for _, step := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(&line, " %d:%d", step, l[step])
	}
	return line.String()
}

// ParseLatencies reads such a line; false for any other.
func ParseLatencies(line string) (Latencies, bool) {
	told, ours := strings.CutPrefix(strings.TrimSpace(line), Prefix+latencyWord)
	if !ours {
		return nil, false
	}
	l := Latencies{}
	for _, word := range strings.Fields(told) {
		step, count, _ := strings.Cut(word, ":")
		at, err := strconv.Atoi(step)
		if err != nil {
			return nil, false
		}
		n, err := strconv.ParseUint(count, 10, 32)
		if err != nil {
			return nil, false
		}
		l[at] += n
	}
	return l, true
}
