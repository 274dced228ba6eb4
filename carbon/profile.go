package carbon

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profile is the user's own intensity over time: figures of certain times, or of the hours of a day.
type Profile struct {
	values series        // of certain times; each holds until the next, the last one for ever
	day    []clockFactor // of a day, by time of day; empty for certain times
	zone   *time.Location
}

// clockFactor is a figure that holds from a time of day.
type clockFactor struct {
	hour, minute int
	factor       Factor
}

func (c clockFactor) minutes() int { return 60*c.hour + c.minute }

// ReadProfile reads lines of "time,gCO2e/kWh", where time is all through the file either RFC 3339 (2026-11-25T12:00:00Z) or
// a time of day in zone (22:00). A first line of headings is passed over. The error names the line.
func ReadProfile(r io.Reader, name string, zone *time.Location) (*Profile, error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord, lines.Comment, lines.TrimLeadingSpace = 2, '#', true
	p := &Profile{zone: zone}
	var factors []Factor
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w; a line is a time and gCO2e/kWh, for example 22:00,95", name, err)
		}
		line, _ := lines.FieldPos(0)
		g, err := strconv.ParseFloat(strings.TrimSpace(fields[1]), 64)
		if err != nil && line == 1 {
			continue // headings
		}
		if err != nil || !believable(g) {
			return nil, fmt.Errorf("%s: line %d: %q is not a number of gCO2e/kWh", name, line, fields[1])
		}
		f := Factor{Intensity: Intensity(g), Source: "profile " + name, Basis: Given, Signal: Average}
		if at, err := time.Parse("15:04", strings.TrimSpace(fields[0])); err == nil {
			p.day = append(p.day, clockFactor{at.Hour(), at.Minute(), f})
			continue
		}
		if f.Start, err = time.Parse(time.RFC3339, strings.TrimSpace(fields[0])); err != nil {
			return nil, fmt.Errorf("%s: line %d: %q is neither a time of day (22:00) nor a time (2026-11-25T12:00:00Z)", name, line, fields[0])
		}
		factors = append(factors, f)
	}
	switch {
	case len(p.day) > 0 && len(factors) > 0:
		return nil, fmt.Errorf("%s: times of day and times with a date; give only one of them", name)
	case len(p.day) == 0 && len(factors) == 0:
		return nil, fmt.Errorf("%s: no line in it; a line is a time and gCO2e/kWh, for example 22:00,95", name)
	}
	slices.SortFunc(p.day, func(a, b clockFactor) int { return a.minutes() - b.minutes() })
	slices.SortFunc(factors, func(a, b Factor) int { return a.Start.Compare(b.Start) })
	for i, f := range factors {
		f.End = f.Start.AddDate(100, 0, 0)
		if i+1 < len(factors) {
			f.End = factors[i+1].Start
		}
		p.values.put(f)
	}
	return p, nil
}

// factorAt is timeline's. Before the first of certain times the first one holds.
func (p *Profile) factorAt(t time.Time) (Factor, time.Time) {
	if len(p.day) == 0 {
		at, _, after := p.values.find(t)
		if at == nil {
			f := *after
			f.Instead = "its first value, since there is none for the time"
			return f, after.Start
		}
		return *at, at.End
	}
	local := t.In(p.zone)
	now := 60*local.Hour() + local.Minute()
	next := slices.IndexFunc(p.day, func(c clockFactor) bool { return c.minutes() > now })
	year, month, day := local.Date()
	current := len(p.day) - 1 // of yesterday evening, until the day's first
	switch {
	case next > 0:
		current = next - 1
	case next < 0:
		next, day = 0, day+1
	}
	edge := time.Date(year, month, day, p.day[next].hour, p.day[next].minute, 0, 0, p.zone)
	if !edge.After(t) { // the clock is set back meanwhile: the hour comes twice
		edge = t.Add(time.Minute)
	}
	return p.day[current].factor, edge
}
