package carbon

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Supply is the electricity that a machine runs on. Its methods may be called from any goroutine and wait for nothing.
type Supply struct {
	place    Place
	timeline timeline
	feed     *Feed // that the timeline follows; nil: none
	pue      float64
}

// timeline is intensity over time.
type timeline interface {
	// factorAt returns the figure for a time, and until when it holds: later than t, or zero where it holds for ever.
	factorAt(t time.Time) (f Factor, until time.Time)
}

// factorAt makes one figure a timeline that never changes.
func (f Factor) factorAt(time.Time) (Factor, time.Time) { return f, time.Time{} }

// NewSupply returns the electricity of a place. forced, in gCO2e/kWh, and pue win over what the place has; nil leaves
// them to it. The error names the flag that is out of its range.
func NewSupply(place Place, forced, pue *float64) (*Supply, error) {
	s := &Supply{place: place, timeline: place.Factor, pue: 1}
	if forced != nil {
		if !(*forced >= 0) || math.IsInf(*forced, 0) {
			return nil, fmt.Errorf("--carbon-intensity: %v is not allowed, only a number of gCO2e/kWh of at least 0", *forced)
		}
		s.timeline = Factor{Intensity: Intensity(*forced), Source: "set by --carbon-intensity", Basis: Given, Signal: Average}
	}
	if place.PUE >= 1 {
		s.pue = place.PUE
	}
	if pue != nil {
		if !(*pue >= 1) || math.IsInf(*pue, 0) {
			return nil, fmt.Errorf("--pue: %v is not allowed, only a number of at least 1", *pue)
		}
		s.pue = *pue
	}
	return s, nil
}

// Follow makes the supply take its intensity from a feed of values over time, and from the place's table where that has none.
func (s *Supply) Follow(f *Feed) {
	s.feed, s.timeline = f, followed{feed: f, table: s.place.Factor}
}

// Run fetches the values that the supply follows, if any, until ctx is done.
func (s *Supply) Run(ctx context.Context) error {
	if s.feed == nil {
		<-ctx.Done()
		return nil
	}
	return s.feed.Run(ctx)
}

// Fetch waits for the present values of what the supply follows, if anything.
func (s *Supply) Fetch(ctx context.Context) error {
	if s.feed == nil {
		return nil
	}
	now := time.Now()
	return s.feed.Fetch(ctx, now.Add(-lookBack), now.Add(time.Hour))
}

// FollowProfile makes the supply take its intensity from the user's own profile.
func (s *Supply) FollowProfile(p *Profile) { s.timeline = p }

// WithPUE returns the same electricity in a data centre with another overhead.
func (s *Supply) WithPUE(pue float64) *Supply {
	other := *s
	other.pue = pue
	return &other
}

// Place returns where the electricity comes from.
func (s *Supply) Place() Place { return s.place }

// PUE returns the power usage effectiveness: the data centre's energy / the machine's.
func (s *Supply) PUE() float64 { return s.pue }

// At returns the figure of carbon intensity for a time, as far as it is known by now.
func (s *Supply) At(t time.Time) Factor {
	f, _ := s.timeline.factorAt(t)
	return f
}

// Portion is a part of some energy for which one figure holds.
type Portion struct {
	Start, End time.Time
	KWh        float64 // the machine's, before PUE
	Factor     Factor
}

// Cut cuts kWh, used evenly from start to end, at the edges of the intensity's periods. The portions add up to it. What
// was used in no time falls to the figure of that moment.
func (s *Supply) Cut(start, end time.Time, kWh float64) []Portion {
	start, end = start.Round(0), end.Round(0) // periods go by the clock on the wall, which may be set meanwhile
	var portions []Portion
	whole, rest := end.Sub(start).Seconds(), kWh
	for from := start; ; {
		f, until := s.timeline.factorAt(from)
		if until.IsZero() || !until.Before(end) {
			return append(portions, Portion{Start: from, End: end, KWh: rest, Factor: f})
		}
		part := kWh * (until.Sub(from).Seconds() / whole)
		portions = append(portions, Portion{Start: from, End: until, KWh: part, Factor: f})
		from, rest = until, rest-part
	}
}

// Emitted returns what a portion emits.
func (s *Supply) Emitted(p Portion) Mass { return p.Factor.Intensity.Emitted(p.KWh * s.pue) }

// Emissions returns what kWh, used by a machine from start to end, emit: times PUE, times the intensity of that time.
func (s *Supply) Emissions(start, end time.Time, kWh float64) Mass {
	var sum Mass
	for _, p := range s.Cut(start, end, kWh) {
		sum += s.Emitted(p)
	}
	return sum
}
