package report

import (
	"cmp"
	"slices"
)

// What everyday things emit, in grams of CO2-equivalent: EPA, Greenhouse Gas Equivalencies Calculator, Calculations and
// References, edition of 2024. An average gasoline-powered car emits 3.93e-4 t per mile, of 1.609344 km; charging a
// smartphone once 1.24e-5 t, with the United States' electricity.
const (
	gramsPerKilometre   = 393 / 1.609344
	gramsPerPhoneCharge = 12.4
	// EquivalenceSource is where these are from.
	EquivalenceSource = "https://www.epa.gov/energy/greenhouse-gas-equivalencies-calculator-calculations-and-references"
)

// Total is what a group of runs emitted together. A run that is inside another of them is not counted again.
type Total struct {
	Name           string
	Runs           int // all of them, nested ones too
	WithoutFigures int // of these: without emissions_g, so the total is too low by what they emitted
	Incomplete     int // of these: partial, or still running
	Emissions      Value
	Low, High      Value // unknown unless all that is counted has an interval
	Energy         Value // kWh
}

// Kilometres returns how far an average car goes for as much.
func (t Total) Kilometres() Value { return t.Emissions / gramsPerKilometre }

// PhoneCharges returns how many charges of a smartphone emit as much.
func (t Total) PhoneCharges() Value { return t.Emissions / gramsPerPhoneCharge }

// add counts a run.
func (t *Total) add(r Run) {
	t.Runs++
	if r.Inside {
		return
	}
	switch {
	case !r.Emissions.Known():
		t.WithoutFigures++
		return
	case r.Metering != Measured:
		t.Incomplete++
	}
	t.Emissions += r.Emissions
	t.Low += r.Low // unknown if one of them is
	t.High += r.High
	if r.Energy.Known() {
		t.Energy += r.Energy
	}
}

// Total returns what the chosen runs emitted together.
func (c Comparison) Total() Total {
	t := Total{Name: "all"}
	for _, r := range c.Chosen() {
		t.add(r)
	}
	return t
}

// ByExperiment returns a total for each experiment, the largest first.
func (c Comparison) ByExperiment() []Total {
	return c.by(func(r Run) string { return cmp.Or(r.Experiment, r.ExperimentID) }, byEmissions)
}

// ByUser returns a total for each user, the largest first.
func (c Comparison) ByUser() []Total {
	return c.by(func(r Run) string { return cmp.Or(r.User, "(no user)") }, byEmissions)
}

// ByMonth returns a total for each month in which runs began, in UTC, the latest first.
func (c Comparison) ByMonth() []Total {
	return c.by(func(r Run) string {
		if r.Start == nil {
			return "(no start)"
		}
		return r.Start.Format("2006-01")
	}, func(a, b Total) int { return cmp.Compare(b.Name, a.Name) })
}

func byEmissions(a, b Total) int {
	return cmp.Or(cmp.Compare(b.Emissions, a.Emissions), cmp.Compare(a.Name, b.Name))
}

func (c Comparison) by(group func(Run) string, order func(a, b Total) int) []Total {
	var totals []Total
	index := map[string]int{}
	for _, r := range c.Chosen() {
		name := group(r)
		i, ok := index[name]
		if !ok {
			i = len(totals)
			index[name] = i
			totals = append(totals, Total{Name: name})
		}
		totals[i].add(r)
	}
	slices.SortFunc(totals, order)
	return totals
}
