package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestEveryRowIsListedWhetherMeasuredOrNot(t *testing.T) {
	b := &bench{row: row{number: 3}}
	b.faster("full sync", []float64{2, 1, 3}, []float64{5, 4, 6}, "a peer", 1.7, 2.5)
	r := &results{}
	r.take(3, b.results)
	listed := map[int]result{}
	for _, x := range r.all {
		listed[x.Row] = x
	}
	for n := 1; n <= 15; n++ {
		x, found := listed[n]
		if !found || (x.Ours == nil) != (n != 3) || (x.Ours == nil && (x.Holds || x.Note != notMeasured)) {
			t.Errorf("row %d: listed %v, as %+v", n, found, x)
		}
	}
	if x := listed[3]; x.Ratio != 2.5 || !x.Holds || *x.Ours.plain() != (plainFigure{2, 1, 3}) || *x.Theirs.plain() != (plainFigure{5, 4, 6}) {
		t.Errorf("row 3 is %+v of %+v and %+v", x, x.Ours, x.Theirs)
	}
}

type plainFigure struct{ median, least, most float64 }

func (f *figure) plain() *plainFigure { return &plainFigure{f.Median, f.Min, f.Max} }

func TestAnEarlierFigureStaysUntilTheRowIsMeasuredAgain(t *testing.T) {
	path := t.TempDir() + "/results.json"
	for _, ours := range []float64{4, 2} {
		r, err := loadResults(path)
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{row: row{number: 12}}
		b.promise("a promise", "s", []float64{ours}, target{3, 1, atMost})
		r.take(11, nil)
		r.take(12, b.results)
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
	}
	r, err := loadResults(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range r.all {
		if x.Row == 12 && (x.Ratio != 2 || !x.Holds) || x.Row != 12 && x.Ours != nil {
			t.Errorf("%+v", x)
		}
	}
	if len(r.all) != 15 {
		t.Errorf("%d rows", len(r.all))
	}
}

func TestTheFiguresHaveTheNamesThatReadersKnow(t *testing.T) {
	f := figureOf([]float64{1})
	text, err := json.Marshal(result{Ours: &f})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"row", "name", "unit", "ours", "theirs", "ratio", "must_reach", "holds", "median", "min", "max"} {
		if !strings.Contains(string(text), `"`+name+`":`) {
			t.Errorf("no %s in %s", name, text)
		}
	}
}

func TestAPlotIsWellFormed(t *testing.T) {
	b := &bench{row: row{number: 1}}
	b.faster("a < b & c", []float64{0}, []float64{0}, `"peer"`, 1, 1)
	b.promise("a promise", "s", []float64{1, 2}, target{1, 1, atMost})
	decoder := xml.NewDecoder(strings.NewReader(plot(b.results)))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuantilesLieBetweenNeighboursInProportion(t *testing.T) {
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.25: 1.75} {
		if got := quantile([]float64{4, 1, 3, 2}, q); got != want {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
}

func TestRowsAreRunInTheOrderOfTheirChoice(t *testing.T) {
	var chosen rowSet
	if err := chosen.Set("8, 1,99"); err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range chosen.choose(allRows()) {
		got = append(got, r.number)
	}
	if !slices.Equal(got, []int{8, 1}) || len(rowSet(nil).choose(allRows())) != 15 {
		t.Errorf("the rows are %v", got)
	}
}

func TestTheFasterOfThePeersCounts(t *testing.T) {
	got := samples{ourSide: {1}, "slow": {3, 9, 4}, "fast": {3, 3, 99}}
	if best := got.bestPeer(); best != "fast" {
		t.Errorf("it is %s", best)
	}
}

func TestTheNameOfAFigureHoldsTheRateThatWasReached(t *testing.T) {
	for rate, want := range map[float64]string{0: "at 0 MB/s each", float64(mib): "at 1 MB/s each", 333_000: "at 0.33 MB/s each"} {
		if got := atRate(rate); got != want {
			t.Errorf("%g bytes a second are %q, want %q", rate, got, want)
		}
	}
}
