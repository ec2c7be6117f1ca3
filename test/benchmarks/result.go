package main

import "time"

// result is one figure of a row, on both sides.
type result struct {
	Row    int     `json:"row"`
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Ours   *figure `json:"ours"`   // null: not measured yet
	Theirs *figure `json:"theirs"` // null: compared with a promise, not with a peer
	// Ratio is what is held against MustReach: how many times as fast, as long, or as large as theirs; without a peer, our median.
	Ratio     float64 `json:"ratio"`
	MustReach float64 `json:"must_reach"`
	AimFor    float64 `json:"aim_for"`
	// Sense is "at least" or "at most".
	Sense string `json:"sense"`
	Holds bool   `json:"holds"`

	Peer       string    `json:"peer,omitempty"`
	Note       string    `json:"note,omitempty"`
	Times      int       `json:"times"`
	RowSeconds float64   `json:"row_seconds"` // how long the whole row took, with what it had to make ready
	MeasuredAt time.Time `json:"measured_at,omitzero"`
}

const (
	atLeast = "at least"
	atMost  = "at most"
)

// target is what a ratio must reach.
type target struct {
	must, aim float64
	sense     string
}

func (t target) holds(ratio float64) bool {
	if t.sense == atLeast {
		return ratio >= t.must
	}
	return ratio <= t.must
}

// faster compares times: the ratio says how many times as fast we are.
func (b *bench) faster(name string, ours, theirs []float64, peer string, must, aim float64) {
	b.compare(result{Name: name, Unit: "s", Peer: peer}, ours, theirs, target{must, aim, atLeast},
		func(o, t float64) float64 { return t / o })
}

// share compares anything: the ratio is ours to theirs.
func (b *bench) share(name, unit string, ours, theirs []float64, peer string, t target) {
	b.compare(result{Name: name, Unit: unit, Peer: peer}, ours, theirs, t, func(o, t float64) float64 { return o / t })
}

// promise holds our median against a limit.
func (b *bench) promise(name, unit string, ours []float64, t target) {
	b.compare(result{Name: name, Unit: unit}, ours, nil, t, nil)
}

func (b *bench) compare(r result, ours, theirs []float64, t target, ratio func(ours, theirs float64) float64) {
	mine := figureOf(ours)
	r.Row, r.Ours, r.Ratio, r.Times = b.row.number, &mine, mine.Median, len(ours)
	if theirs != nil {
		f := figureOf(theirs)
		r.Theirs = &f
		r.Ratio = ratio(mine.Median, f.Median)
	}
	r.MustReach, r.AimFor, r.Sense, r.Holds = t.must, t.aim, t.sense, t.holds(r.Ratio)
	r.MeasuredAt = time.Now().UTC().Truncate(time.Second)
	b.results = append(b.results, r)
}

// overall has the last result judged by a figure of all measurements together, where the median of the single ones says too little.
func (b *bench) overall(figure float64) {
	last := &b.results[len(b.results)-1]
	last.Ratio = figure
	last.Holds = target{last.MustReach, last.AimFor, last.Sense}.holds(figure)
}

// remark adds a note to the last result.
func (b *bench) remark(text string) { b.results[len(b.results)-1].Note = text }
