package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// digits is how many digits of a figure are shown: the intervals are far wider than the third.
const digits = 3

const (
	thinSpace = "\u202f" // between groups of digits, and never at the end of a line
	dash      = "–"
)

// plain writes a number with three digits, those before the point all: 0.0123, 1.23, 123, 12 345; 1.2×10⁻⁷ where there
// would be too many zeros.
func plain(v Value) string {
	a := math.Abs(float64(v))
	switch {
	case !v.Known():
		return dash
	case a == 0:
		return "0"
	case a < 1e-4 || a >= 1e9:
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(float64(v), 'e', digits-1, 64), "e")
		n, _ := strconv.Atoi(exponent)
		return mantissa + "×10" + strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹").Replace(strconv.Itoa(n))
	}
	// Rounded first, since 9.999 has one digit after the point fewer than it seems to have.
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(a, 'e', digits-1, 64), 64)
	decimals := max(0, digits-1-int(math.Floor(math.Log10(rounded))))
	return grouped(strconv.FormatFloat(float64(v), 'f', decimals, 64))
}

// grouped puts thin spaces between groups of three digits, from five digits before the point on.
func grouped(s string) string {
	whole, fraction, point := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "−", whole[1:]
	}
	if len(whole) > 4 {
		var parts []string
		for ; len(whole) > 3; whole = whole[:len(whole)-3] {
			parts = append(parts, whole[len(whole)-3:])
		}
		parts = append(parts, whole)
		slices.Reverse(parts)
		whole = strings.Join(parts, thinSpace)
	}
	if point {
		return sign + whole + "." + fraction
	}
	return sign + whole
}

// unit is a unit and how many of the figure's own are in it.
type unit struct {
	name  string
	scale Value
}

// The units of a kind, the smallest first; one of them is the figure's own, with a scale of 1.
var (
	massUnits   = []unit{{"ng", 1e-9}, {"µg", 1e-6}, {"mg", 1e-3}, {"g", 1}, {"kg", 1e3}, {"t", 1e6}}
	energyUnits = []unit{{"µWh", 1e-9}, {"mWh", 1e-6}, {"Wh", 1e-3}, {"kWh", 1}, {"MWh", 1e3}, {"GWh", 1e6}}
	countUnits  = []unit{{"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}}
	// A percentage per gram is a thousand of them per kilogram.
	ratioUnits  = []unit{{"%/t", 1e-6}, {"%/kg", 1e-3}, {"%/g", 1}, {"%/mg", 1e3}, {"%/µg", 1e6}}
	lengthUnits = []unit{{"µm", 1e-9}, {"mm", 1e-6}, {"m", 1e-3}, {"km", 1}}
)

// fitting returns the largest unit that is not larger than a figure.
func fitting(units []unit, v Value) unit {
	for i := len(units) - 1; i > 0; i-- {
		if math.Abs(float64(v)) >= float64(units[i].scale)*(1-5e-4) { // 999.6 mg is written as 1.00 g
			return units[i]
		}
	}
	return units[0]
}

// common returns one unit for many figures, which a column can be compared in: the one that fits the middle one.
func common(units []unit, values []Value) unit {
	var known []Value
	for _, v := range values {
		if v.Known() && v != 0 {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return units[slices.IndexFunc(units, func(u unit) bool { return u.scale == 1 })]
	}
	slices.Sort(known)
	return fitting(units, known[len(known)/2])
}

// in writes a figure in the unit that fits it.
func in(units []unit, v Value) string {
	if !v.Known() {
		return dash
	}
	if v == 0 {
		return "0"
	}
	u := fitting(units, v)
	return strings.TrimSpace(plain(v/u.scale) + " " + u.name)
}

// Mass writes grams: 12.3 mg.
func Mass(v Value) string { return in(massUnits, v) }

// Energy writes kWh: 1.23 Wh.
func Energy(v Value) string { return in(energyUnits, v) }

// Count writes a large number: 25.6 M.
func Count(v Value) string { return in(countUnits, v) }

// Distance writes kilometres: 4.45 mm, 12.3 km.
func Distance(v Value) string { return in(lengthUnits, v) }

// Charges writes how often a phone is charged: 12.3; 1/40 of a charge.
func Charges(v Value) string {
	if v.Known() && v > 0 && v < 0.1 {
		return "1/" + grouped(strconv.FormatFloat(math.Round(1/float64(v)), 'f', 0, 64))
	}
	return plain(v)
}

// Seconds writes a duration: 850 ms, 12.3 s, 4 min 05 s, 3 h 07 min, 2 d 04 h.
func Seconds(v Value) string {
	if !v.Known() || v < 0 {
		return dash
	}
	d := time.Duration(float64(v) * float64(time.Second))
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	d = d.Round(time.Second)
	switch {
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %02d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
