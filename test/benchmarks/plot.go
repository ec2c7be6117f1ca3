package main

import (
	"fmt"
	"html"
	"strings"
)

// The measures of a plot, in pixels. Plots are a few bars each, which is less than a plotting library wants to be told.
const (
	plotWidth   = 860
	plotLabels  = 330
	plotFigures = 150
	barHeight   = 18
	barGap      = 6
)

// plot draws, for each result, a bar to the median of either side, and a line from the least to the largest measurement. Each
// result has a scale of its own, from zero.
func plot(results []result) string {
	var body strings.Builder
	y := barGap
	for _, x := range results {
		top := x.Ours.Max
		if x.Theirs != nil {
			top = max(top, x.Theirs.Max)
		}
		y = bar(&body, y, x.Name+", ours", x.Unit, *x.Ours, top, "#2b6cb0")
		if x.Theirs != nil {
			y = bar(&body, y, "theirs: "+x.Peer, x.Unit, *x.Theirs, top, "#a0aec0")
		}
		y += 2 * barGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
%s</svg>
`, plotWidth, y, body.String())
}

// bar draws one side and returns where the next one goes.
func bar(to *strings.Builder, y int, label, unit string, f figure, top float64, color string) int {
	x := func(v float64) float64 {
		if top <= 0 {
			return plotLabels
		}
		return plotLabels + v/top*(plotWidth-plotLabels-plotFigures)
	}
	middle := float64(y) + barHeight/2.0
	fmt.Fprintf(to, "<text x=\"%d\" y=\"%g\" text-anchor=\"end\">%s</text>\n", plotLabels-8, middle+4, html.EscapeString(label))
	fmt.Fprintf(to, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", plotLabels, y, x(f.Median)-plotLabels, barHeight, color)
	fmt.Fprintf(to, "<line x1=\"%.1f\" y1=\"%g\" x2=\"%.1f\" y2=\"%g\" stroke=\"black\"/>\n", x(f.Min), middle, x(f.Max), middle)
	fmt.Fprintf(to, "<text x=\"%.1f\" y=\"%g\">%s %s</text>\n", x(f.Max)+8, middle+4, html.EscapeString(number(f.Median)), html.EscapeString(unit))
	return y + barHeight + barGap
}
