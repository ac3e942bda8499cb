package tune

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// The marks of a plot.
const (
	markDominated = '·'
	markFront     = 'o'
	markChosen    = '#'
)

// marks returns how each result is drawn; chosen is -1 if none is chosen.
func marks(results []Result, chosen int) []rune {
	marks := make([]rune, len(results))
	for i, dominated := range Dominated(results) {
		marks[i] = markFront
		if dominated {
			marks[i] = markDominated
		}
	}
	if chosen >= 0 {
		marks[chosen] = markChosen
	}
	return marks
}

// axes are the ranges of a plot: throughput to the right, and p99 upwards on a
// logarithmic scale, because settings often differ by a large factor.
type axes struct {
	most    float64 // rows per second
	low, up float64 // log of seconds
}

func newAxes(results []Result) (axes, bool) {
	a := axes{low: math.Inf(1), up: math.Inf(-1)}
	for i := range results {
		if r := &results[i]; r.Err == nil {
			p99 := math.Log(max(r.P99, time.Microsecond).Seconds())
			a.most, a.low, a.up = max(a.most, r.Throughput), min(a.low, p99), max(a.up, p99)
		}
	}
	a.low, a.up = a.low-0.1, a.up+0.1
	return a, a.most > 0
}

// place is the position of a result, with both axes from 0 to 1.
func (a *axes) place(r *Result) (x, y float64) {
	return r.Throughput / a.most, (math.Log(max(r.P99, time.Microsecond).Seconds()) - a.low) / (a.up - a.low)
}

func logSeconds(log float64) time.Duration {
	d := time.Duration(math.Exp(log) * float64(time.Second))
	return d.Round(max(time.Duration(math.Pow10(len(fmt.Sprint(int64(d)))-2)), 1))
}

// TextPlot draws the results with letters: o is not dominated, # is the chosen one.
func TextPlot(w io.Writer, results []Result, chosen int) error {
	const width, height = 64, 14
	a, ok := newAxes(results)
	if !ok {
		return nil
	}
	canvas := make([][]rune, height)
	for i := range canvas {
		canvas[i] = []rune(strings.Repeat(" ", width))
	}
	rank := []rune{' ', markDominated, markFront, markChosen}
	for i, mark := range marks(results, chosen) {
		if results[i].Err != nil {
			continue
		}
		x, y := a.place(&results[i])
		at := &canvas[height-1-int(y*(height-1)+0.5)][int(x*(width-1)+0.5)]
		if slices.Index(rank, mark) > slices.Index(rank, *at) {
			*at = mark
		}
	}
	var b strings.Builder
	b.WriteString("p99\n")
	for i, line := range canvas {
		label := ""
		switch i {
		case 0:
			label = logSeconds(a.up).String()
		case height - 1:
			label = logSeconds(a.low).String()
		}
		fmt.Fprintf(&b, "%8s │%s\n", label, strings.TrimRight(string(line), " "))
	}
	fmt.Fprintf(&b, "%8s └%s\n%10s%-*s%.0f rows/s\n", "", strings.Repeat("─", width), "", width-4, "0", a.most)
	_, err := io.WriteString(w, b.String())
	return err
}

// SVG draws the results as a picture. Each point shows its setting when the mouse
// is over it.
func SVG(w io.Writer, title string, results []Result, chosen int) error {
	const width, height, margin = 640, 400, 60
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="15">%s</text>`+"\n", margin, html.EscapeString(title))
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="black"/>`+"\n", margin, margin-20, height-margin, width-20)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">rows/s at saturation</text>`+"\n", width-20, height-20)
	fmt.Fprintf(&b, `<text x="20" y="%d" transform="rotate(-90 20 %d)">p99, logarithmic</text>`+"\n", height/2, height/2)
	if a, ok := newAxes(results); ok {
		x := func(part float64) float64 { return margin + part*(width-margin-40) }
		y := func(part float64) float64 { return height - margin - part*(height-2*margin) }
		for i := range 5 {
			part := float64(i) / 4
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`+"\n", x(part), height-margin+18, part*a.most)
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%v</text>`+"\n", margin-6, y(part)+4, logSeconds(a.low+part*(a.up-a.low)))
		}
		colours := map[rune]string{markDominated: "#bbb", markFront: "#1f6fb4", markChosen: "#d62728"}
		for i, mark := range marks(results, chosen) {
			r := &results[i]
			if r.Err != nil {
				continue
			}
			px, py := a.place(r)
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="5" fill="%s"><title>%s: %.1f rows/s, p99 %v</title></circle>`+"\n",
				x(px), y(py), colours[mark], html.EscapeString(r.String()), r.Throughput, r.P99.Round(time.Microsecond))
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
