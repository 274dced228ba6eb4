package carbon

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Use is energy that a machine used in a stretch of time, before PUE.
type Use struct {
	Start, End time.Time
	KWh        float64
}

// Ledger is energy over time by what it was used for, as it is kept beside a figure so that others can be worked out from
// it later.
type Ledger map[string][]Use

// KWh is the energy of all uses.
func (l Ledger) KWh() float64 {
	var kWh float64
	for _, uses := range l {
		for _, u := range uses {
			kWh += u.KWh
		}
	}
	return kWh
}

// steps are how coarse a ledger may become to be short enough; the first is as fine as it comes.
var steps = []time.Duration{
	0, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour, 364 * 24 * time.Hour,
}

// longestLedger bounds what is believed of a ledger, which decides for what time a provider is asked.
const longestLedger = 10 * 365 * 24 * time.Hour

// ledgerVersion is what the text begins with.
const ledgerVersion = 1

// writtenLedger is the text: per purpose when it begins, and then one pair after the other of seconds and energy. Time in
// which nothing was used is a pair with 0.
type writtenLedger struct {
	Version int                    `json:"v"`
	Unit    float64                `json:"unit_j"` // of the energies
	Uses    map[string]writtenUses `json:"uses"`
}

type writtenUses struct {
	Start time.Time    `json:"start"`
	Pairs [][2]float64 `json:"s_e"`
}

const joulesPerKWh = 3.6e6 // exact

// Encode writes a ledger as JSON of at most so many bytes: as finely as that allows, in whole steps of 5 minutes, 10, 15,
// 30, 60 and so on. The energies are rounded so that their sum is right to 1e-9. It is empty where nothing fits.
func (l Ledger) Encode(most int) string {
	unit := 1.0
	if joules := l.KWh() * joulesPerKWh; joules > 0 {
		unit = math.Pow10(int(math.Floor(math.Log10(joules))) - 9)
	}
	for _, step := range steps {
		w := writtenLedger{Version: ledgerVersion, Unit: unit, Uses: map[string]writtenUses{}}
		for name, uses := range l {
			if len(uses) > 0 {
				w.Uses[name] = write(coarser(uses, step), unit)
			}
		}
		if text, err := json.Marshal(w); err == nil && len(text) <= most {
			return string(text)
		}
	}
	return ""
}

// coarser joins what follows on directly within a step, or with a step of 0 what is one stretch within five minutes; with
// longer steps also over pauses.
func coarser(uses []Use, step time.Duration) []Use {
	sorted := slices.Clone(uses)
	slices.SortStableFunc(sorted, func(a, b Use) int { return a.Start.Compare(b.Start) })
	var joined []Use
	for _, u := range sorted {
		if n := len(joined); n > 0 {
			last := &joined[n-1]
			slot := max(step, steps[1])
			same := last.Start.Truncate(slot).Equal(u.Start.Truncate(slot))
			if same && (step > 0 || !u.Start.After(last.End)) {
				last.KWh += u.KWh
				if u.End.After(last.End) {
					last.End = u.End
				}
				continue
			}
		}
		joined = append(joined, u)
	}
	return joined
}

// Bound makes the ledger as coarse as it takes for every purpose to have at most so many uses.
func (l Ledger) Bound(most int) {
	for name, uses := range l {
		for i := 0; i < len(steps) && len(uses) > most; i++ {
			uses = coarser(uses, steps[i])
		}
		l[name] = uses
	}
}

// write turns uses into pairs, rounding running sums and not each value, so that no error grows.
func write(uses []Use, unit float64) writtenUses {
	w := writtenUses{Start: uses[0].Start.UTC().Truncate(time.Millisecond)}
	at := w.Start
	var energy, written float64
	pair := func(until time.Time, joules float64) {
		until = until.Truncate(time.Millisecond)
		energy += joules / unit
		w.Pairs = append(w.Pairs, [2]float64{float64(max(0, until.Sub(at).Milliseconds())) / 1000, math.Round(energy) - written})
		written = math.Round(energy)
		if until.After(at) {
			at = until
		}
	}
	for _, u := range uses {
		if u.Start.Sub(at) >= time.Millisecond {
			pair(u.Start, 0)
		}
		pair(u.End, u.KWh*joulesPerKWh)
	}
	return w
}

// DecodeLedger reads what Encode wrote. The text may come from anybody.
func DecodeLedger(text string) (Ledger, error) {
	var w writtenLedger
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return nil, fmt.Errorf("no energy over time in it: %w", err)
	}
	if w.Version != ledgerVersion {
		return nil, fmt.Errorf("energy over time is written in version %d, and %d is known here", w.Version, ledgerVersion)
	}
	if !(w.Unit > 0) || w.Unit > 1e12 {
		return nil, errors.New("energy over time has no unit")
	}
	l := Ledger{}
	for name, uses := range w.Uses {
		at, latest := uses.Start, uses.Start.Add(longestLedger)
		if y := at.Year(); y < 2000 || y > 2200 {
			return nil, errors.New("energy over time has a time that cannot be")
		}
		for _, p := range uses.Pairs {
			seconds, joules := p[0], p[1]*w.Unit
			if !(seconds >= 0 && seconds <= latest.Sub(at).Seconds()) || !(joules >= 0 && joules < 1e18) {
				return nil, errors.New("energy over time has a value that cannot be")
			}
			end := at.Add(time.Duration(math.Round(seconds*1000)) * time.Millisecond)
			if joules > 0 || seconds == 0 {
				l[name] = append(l[name], Use{Start: at, End: end, KWh: joules / joulesPerKWh})
			}
			at = end
		}
	}
	return l, nil
}
