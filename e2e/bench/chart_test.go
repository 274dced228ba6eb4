//go:build linux

package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// series is one line of the chart: for each number of neighbours, a value per round.
type series struct {
	name   string
	rounds [][]float64
	colour string // of Okabe and Ito's palette, which colour-blind people can tell apart
	dash   string // tells the lines apart without colour, as the shapes do
	shape  func(x, y float64) string
}

func circle(x, y float64) string { return fmt.Sprintf(`<circle cx="%.1f" cy="%.1f" r="5"/>`, x, y) }

func square(x, y float64) string {
	return fmt.Sprintf(`<rect x="%.1f" y="%.1f" width="9" height="9"/>`, x-4.5, y-4.5)
}

func triangle(x, y float64) string {
	return fmt.Sprintf(`<path d="M%.1f %.1fl6 10h-12z"/>`, x, y-6)
}

// chart draws energy over the number of busy neighbours. The background is white, so that a dark page does not swallow
// the text.
func chart(title, subtitle string, lines []series) string {
	const width, height, left, right, top, bottom = 880, 480, 80, 270, 80, 70
	var highest float64
	for _, s := range lines {
		for _, values := range s.rounds {
			highest = max(highest, slices.Max(values))
		}
	}
	step := niceStep(highest / 5)
	highest = math.Ceil(highest/step) * step
	steps := len(lines[0].rounds) - 1
	x := func(i int) float64 { return left + 20 + float64(i)*(width-left-right-40)/float64(steps) }
	y := func(v float64) float64 { return height - bottom - v/highest*(height-top-bottom) }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s" font-family="sans-serif" font-size="15" fill="#222">`+"\n",
		width, height, title)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="32" font-size="19" font-weight="bold">%s</text>`+"\n", left-50, title)
	fmt.Fprintf(&b, `<text x="%d" y="55" font-size="14">%s</text>`+"\n", left-50, subtitle)
	for i := 0; float64(i)*step <= highest; i++ {
		v := float64(i) * step
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ccc"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n",
			left, y(v), width-right, left-8, y(v)+5, v)
	}
	for i := range steps + 1 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(i), height-bottom+24, i)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">busy neighbours (processes)</text>`+"\n", (left+width-right)/2, height-18)
	fmt.Fprintf(&b, `<text transform="translate(26 %d) rotate(-90)" text-anchor="middle">CPU energy of the run (J)</text>`+"\n", (top+height-bottom)/2)

	labels := make([]float64, len(lines))
	for i, s := range lines {
		labels[i] = y(median(s.rounds[steps]))
	}
	apart(labels, 42)
	for i, s := range lines {
		var path strings.Builder
		for n, values := range s.rounds {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[n == 0], x(n), y(median(values)))
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2.5" stroke-dasharray="%s"/>`+"\n", &path, s.colour, s.dash)
		fmt.Fprintf(&b, `<g fill="%s" fill-opacity="0.75">`, s.colour)
		for n, values := range s.rounds {
			for _, v := range values {
				b.WriteString(s.shape(x(n), y(v)))
			}
		}
		b.WriteString("</g>\n")
		times := median(s.rounds[steps]) / median(s.rounds[0])
		fmt.Fprintf(&b, `<g fill="%s">%s</g><text x="%d" y="%.1f" font-weight="bold">%s</text><text x="%d" y="%.1f">%.2f x its energy alone</text>`+"\n",
			s.colour, s.shape(width-right+20, labels[i]-5), width-right+34, labels[i], s.name, width-right+34, labels[i]+18, times)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// niceStep is the next of 1, 2, 5, 10, ... from v.
func niceStep(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}

// apart moves labels so that each is at least so far below the one above it; the lowest stays where it is.
func apart(y []float64, distance float64) {
	order := make([]int, len(y))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if y[a] > y[b] {
			return -1
		}
		return 1
	})
	for i := 1; i < len(order); i++ {
		y[order[i]] = min(y[order[i]], y[order[i-1]]-distance)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[n/2] + sorted[(n-1)/2]) / 2
}
