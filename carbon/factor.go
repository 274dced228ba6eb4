package carbon

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Basis says which emissions a figure counts. Figures of different bases cannot be compared without saying so.
type Basis string

// The bases, as tags show them.
const (
	Lifecycle Basis = "lifecycle"        // CO2e of burning the fuel, and of winning it and building the plants
	Direct    Basis = "direct"           // CO2e of burning the fuel
	DirectCO2 Basis = "direct, CO2 only" // CO2 of burning the fuel
	Given     Basis = "as given"         // the user's own figure: what it counts is not known here
)

// Signal says of which plants a figure is.
type Signal string

// The signals, as tags show them.
const (
	Average  Signal = "average"  // of all plants, by their share
	Marginal Signal = "marginal" // of those that one kWh more would make work; never added to averages without saying so
)

// Factor is one figure of carbon intensity with all that must be known to judge it.
type Factor struct {
	Intensity  Intensity
	Source     string    // whose figure it is, with its year or its time
	Year       int       // that a table's figure is about; 0 for a provider's
	Start, End time.Time // that a provider's figure is about; zero for a table's
	Basis      Basis
	Signal     Signal
	Estimated  bool   // by its provider: a forecast, or a model in place of measurements
	Instead    string // why it stands for another figure that was wanted; empty where it is what was wanted
}

// Kind says in a few words what the figure is: "lifecycle, average", "direct, CO2 only, marginal, estimated".
func (f Factor) Kind() string {
	kind := fmt.Sprintf("%s, %s", f.Basis, f.Signal)
	if f.Basis == Given {
		kind = string(Given)
	}
	if f.Estimated {
		kind += estimated
	}
	return kind
}

// What kinds of figures are said to be, besides their basis and signal.
const (
	mixed     = "mixed: " // before several that cannot be compared
	estimated = ", estimated"
)

// DescribeKinds says of which kinds figures are, in the order in which they first come; several that cannot be
// compared begin with "mixed: ". Estimates can be compared with measurements.
func DescribeKinds(factors []Factor) string {
	var kinds []string
	for _, f := range factors {
		if !slices.Contains(kinds, f.Kind()) {
			kinds = append(kinds, f.Kind())
		}
	}
	return JoinKinds(kinds...)
}

// DescribeSources names whose figures they are, each once: with the time that a provider's are about, and why one stands
// for another.
func DescribeSources(factors []Factor) string {
	var sources []Factor
	for _, f := range factors {
		i := slices.IndexFunc(sources, func(o Factor) bool { return o.Source == f.Source && o.Instead == f.Instead })
		if i < 0 {
			sources = append(sources, f)
			continue
		}
		if f.Start.Before(sources[i].Start) {
			sources[i].Start = f.Start
		}
		if f.End.After(sources[i].End) {
			sources[i].End = f.End
		}
	}
	var texts []string
	for _, f := range sources {
		text := f.Source
		if !f.Start.IsZero() {
			text += fmt.Sprintf(", %s to %s", clock(f.Start), clock(f.End))
		}
		if f.Instead != "" {
			text += " (" + f.Instead + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// clock shows a time as the providers do.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04Z") }

// JoinKinds joins what DescribeKinds said at different times of one run.
func JoinKinds(texts ...string) string {
	var kinds, comparable []string
	for _, text := range texts {
		for _, kind := range strings.Split(strings.TrimPrefix(text, mixed), "; ") {
			if kind != "" && !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	for _, kind := range kinds {
		if same := strings.TrimSuffix(kind, estimated); !slices.Contains(comparable, same) {
			comparable = append(comparable, same)
		}
	}
	joined := strings.Join(kinds, "; ")
	if len(comparable) > 1 {
		return mixed + joined
	}
	return joined
}
