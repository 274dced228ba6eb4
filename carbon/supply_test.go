package carbon

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func at(clock string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", "2026-11-25 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

// hourly makes figures of one hour each.
func hourly(from string, gPerKWh ...float64) []Factor {
	var factors []Factor
	start := at(from)
	for _, g := range gPerKWh {
		factors = append(factors, Factor{Intensity: Intensity(g), Source: "test", Start: start, End: start.Add(time.Hour), Basis: Lifecycle, Signal: Average})
		start = start.Add(time.Hour)
	}
	return factors
}

// filled returns a feed that has figures and no provider that answers.
func filled(factors ...Factor) *Feed {
	f := NewFeed(silent{}, slog.New(slog.DiscardHandler))
	for _, v := range factors {
		f.values.put(v)
	}
	f.fresh.Set(keyNow, true, time.Hour)
	return f
}

// A run from 11:40 to 13:20 at 1.2 kW has 0.4, 1.2 and 0.4 kWh in the three hours; by one hour's value it was wrong by
// as much as the hours differ.
func TestEnergyHasTheIntensityOfItsHours(t *testing.T) {
	t.Parallel()
	for _, pue := range []float64{1, 1.5} {
		s, err := NewSupply(World(), nil, &pue)
		require.NoError(t, err)
		s.Follow(filled(hourly("11:00:00", 100, 300, 50)...))
		want := pue * (0.4*100 + 1.2*300 + 0.4*50)
		assert.InDelta(t, want, s.Emissions(at("11:40:00"), at("13:20:00"), 2).Grams(), 1e-9)
		portions := s.Cut(at("11:40:00"), at("13:20:00"), 2)
		require.Len(t, portions, 3)
		assert.Equal(t, at("12:00:00"), portions[0].End)
		assert.Equal(t, at("13:00:00"), portions[2].Start)
		assert.InDelta(t, 0, s.Emissions(at("12:30:00"), at("12:30:00"), 0).Grams(), 0)
		assert.InDelta(t, pue*300, s.Emissions(at("12:30:00"), at("12:30:00"), 1).Grams(), 1e-9, "energy in no time is the moment's")
	}
}

// Cutting must neither lose nor make energy, whatever the periods: 5, 15, 30 and 60 minutes, with gaps, in any order.
func TestCuttingKeepsAllEnergy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := filled()
		for range rapid.IntRange(0, 30).Draw(t, "values") {
			period := rapid.SampledFrom([]time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour}).Draw(t, "period")
			start := at("00:00:00").Add(time.Duration(rapid.IntRange(0, 24*12).Draw(t, "start")) * 5 * time.Minute)
			f.values.put(Factor{Intensity: Intensity(rapid.Float64Range(0, 1000).Draw(t, "g")), Start: start, End: start.Add(period)})
		}
		assert.True(t, slices.IsSortedFunc(f.values.factors, func(a, b Factor) int { return a.Start.Compare(b.Start) }))
		for i, v := range f.values.factors {
			assert.True(t, v.Start.Before(v.End))
			if i > 0 {
				assert.False(t, v.Start.Before(f.values.factors[i-1].End), "values overlap")
			}
		}
		s, err := NewSupply(World(), nil, nil)
		require.NoError(t, err)
		s.Follow(f)
		start := at("00:00:00").Add(time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "from")))
		end := start.Add(time.Duration(rapid.Int64Range(0, int64(12*time.Hour)).Draw(t, "length")))
		kWh := rapid.Float64Range(0, 100).Draw(t, "kWh")
		var sum, grams float64
		next := start
		for _, p := range s.Cut(start, end, kWh) {
			assert.Equal(t, next, p.Start)
			next = p.End
			sum += p.KWh
			grams += p.KWh * p.Factor.Intensity.GPerKWh()
			assert.GreaterOrEqual(t, p.KWh, -1e-12)
			if whole := end.Sub(start).Seconds(); whole > 0 {
				assert.InDelta(t, kWh*p.End.Sub(p.Start).Seconds()/whole, p.KWh, 1e-9, "in proportion to time")
			}
		}
		assert.Equal(t, end, next)
		assert.InDelta(t, kWh, sum, 1e-9)
		assert.InDelta(t, grams, s.Emissions(start, end, kWh).Grams(), 1e-9)
		// Cut in two beforehand it is the same, as it comes in slices of five minutes.
		middle := start.Add(end.Sub(start) / 2)
		half := kWh
		if end.After(start) {
			half = kWh * middle.Sub(start).Seconds() / end.Sub(start).Seconds()
		}
		assert.InDelta(t, grams, (s.Emissions(start, middle, half) + s.Emissions(middle, end, kWh-half)).Grams(), 1e-7)
	})
}

// A measurement that comes late must take the place of its estimate, also where their periods differ.
func TestLateValuesTakeThePlaceOfEstimates(t *testing.T) {
	t.Parallel()
	s, err := NewSupply(World(), nil, nil)
	require.NoError(t, err)
	f := filled(hourly("11:00:00", 100, 300)...)
	s.Follow(f)
	before := s.Emissions(at("11:00:00"), at("13:00:00"), 2)
	assert.InDelta(t, 400, before.Grams(), 1e-9)
	f.values.put(Factor{Intensity: 500, Start: at("11:30:00"), End: at("12:30:00")})
	assert.InDelta(t, 0.5*100+1*500+0.5*300, s.Emissions(at("11:00:00"), at("13:00:00"), 2).Grams(), 1e-9)
	f.values.put(Factor{Intensity: 700, Start: at("11:00:00"), End: at("13:00:00")})
	assert.InDelta(t, 1400, s.Emissions(at("11:00:00"), at("13:00:00"), 2).Grams(), 1e-9)
	assert.Len(t, f.values.factors, 1)
}

// A gap of some hours takes the last value, a longer one the table's; both say so.
func TestGapsFallBackToTheLastValueAndThenToTheTable(t *testing.T) {
	t.Parallel()
	belgium, err := Locate("BEL")
	require.NoError(t, err)
	s, err := NewSupply(belgium, nil, nil)
	require.NoError(t, err)
	s.Follow(filled(append(hourly("04:00:00", 100), hourly("12:00:00", 300)...)...))
	for clock, want := range map[string]struct {
		g      float64
		source string
	}{
		"03:59:59": {belgium.Intensity.GPerKWh(), "Our World in Data / Ember 2023 (lifecycle) (since a provider has no value for the time)"},
		"04:30:00": {100, "test, 2026-11-25T04:00Z to 2026-11-25T05:00Z"},
		"07:59:59": {100, "test, 2026-11-25T04:00Z to 2026-11-25T05:00Z (its last value, since there is none for the time)"},
		"08:00:00": {belgium.Intensity.GPerKWh(), "since a provider has no value for the time"},
		"12:00:00": {300, "test"},
		"15:59:59": {300, "its last value"},
		"16:00:00": {belgium.Intensity.GPerKWh(), "since a provider has no value for the time"},
	} {
		f := s.At(at(clock))
		assert.Equal(t, want.g, f.Intensity.GPerKWh(), clock)
		assert.Contains(t, DescribeSources([]Factor{f}), want.source, clock)
	}
	var edges []string
	var factors []Factor
	for _, p := range s.Cut(at("03:00:00"), at("17:00:00"), 14) {
		edges = append(edges, p.End.Format("15:04"))
		factors = append(factors, p.Factor)
	}
	assert.Equal(t, []string{"04:00", "05:00", "08:00", "12:00", "13:00", "16:00", "17:00"}, edges)
	assert.Equal(t, "lifecycle, average", DescribeKinds(factors))
	assert.Len(t, strings.Split(DescribeSources(factors), "; "), 3, DescribeSources(factors))
}

// Figures that count different things must not pass for one.
func TestMixedKindsAreSaid(t *testing.T) {
	t.Parallel()
	for want, factors := range map[string][]Factor{
		"lifecycle, average": {{Basis: Lifecycle, Signal: Average}, {Basis: Lifecycle, Signal: Average}},
		"lifecycle, average; lifecycle, average, estimated":            {{Basis: Lifecycle, Signal: Average}, {Basis: Lifecycle, Signal: Average, Estimated: true}},
		"mixed: direct, CO2 only, marginal; lifecycle, average":        {{Basis: DirectCO2, Signal: Marginal}, {Basis: Lifecycle, Signal: Average}},
		"mixed: direct, CO2 only, marginal; direct, CO2 only, average": {{Basis: DirectCO2, Signal: Marginal}, {Basis: DirectCO2, Signal: Average}},
		"as given": {{Basis: Given, Signal: Average}},
	} {
		assert.Equal(t, want, DescribeKinds(factors))
	}
}

func TestForcedValuesWinOverAll(t *testing.T) {
	t.Parallel()
	g := 42.0
	region, err := Locate("aws:us-east-1")
	require.NoError(t, err)
	s, err := NewSupply(region, &g, nil)
	require.NoError(t, err)
	f := s.At(at("12:00:00"))
	assert.Equal(t, Factor{Intensity: 42, Source: "set by --carbon-intensity", Basis: Given, Signal: Average}, f)
	assert.Equal(t, 1.14, s.PUE(), "the region's overhead stays")
	assert.Equal(t, 2.0, s.WithPUE(2).PUE())
	assert.Equal(t, 1.14, s.PUE())
}

// The user's own day goes by the clock on the wall, on the days on which that is set too.
func TestProfilesOfADay(t *testing.T) {
	t.Parallel()
	brussels, err := time.LoadLocation("Europe/Brussels")
	require.NoError(t, err)
	p, err := ReadProfile(strings.NewReader("time,g_per_kwh\n# nights are windy\n22:00,50\n06:00, 200\n"), "day.csv", brussels)
	require.NoError(t, err)
	s, err := NewSupply(World(), nil, nil)
	require.NoError(t, err)
	s.FollowProfile(p)
	for utc, want := range map[string]float64{
		"2026-11-25T20:59:59Z": 200, "2026-11-25T21:00:00Z": 50, "2026-11-25T04:59:59Z": 50, "2026-11-25T05:00:00Z": 200,
		"2026-07-01T20:00:00Z": 50, "2026-07-01T19:59:59Z": 200, "2026-07-01T04:00:00Z": 200, "2026-07-01T03:59:59Z": 50,
	} {
		moment, err := time.Parse(time.RFC3339, utc)
		require.NoError(t, err)
		assert.Equal(t, want, s.At(moment).Intensity.GPerKWh(), utc)
	}
	// The night of 24 to 25 October 2026 has 9 hours from 22:00 to 06:00, that of 28 to 29 March 7.
	for night, want := range map[string]float64{"2026-10-24T20:00:00Z": 9 * 50, "2026-03-28T21:00:00Z": 7*50 + 2*200} {
		start, err := time.Parse(time.RFC3339, night)
		require.NoError(t, err)
		assert.InDelta(t, want, s.Emissions(start, start.Add(9*time.Hour), 9).Grams(), 1e-6, night)
	}
	one, err := ReadProfile(strings.NewReader("12:00,100"), "one.csv", time.UTC)
	require.NoError(t, err)
	f, until := one.factorAt(at("11:00:00"))
	assert.Equal(t, 100.0, f.Intensity.GPerKWh())
	assert.Equal(t, at("12:00:00"), until)
}

func TestProfilesOfCertainTimes(t *testing.T) {
	t.Parallel()
	p, err := ReadProfile(strings.NewReader("2026-11-25T13:00:00+01:00,300\n2026-11-25T11:00:00Z,100\n2026-11-25T13:00:00Z,50\n"), "x.csv", time.UTC)
	require.NoError(t, err)
	s, err := NewSupply(World(), nil, nil)
	require.NoError(t, err)
	s.FollowProfile(p)
	assert.InDelta(t, 0.4*100+1.2*300+0.4*50, s.Emissions(at("11:40:00"), at("13:20:00"), 2).Grams(), 1e-9)
	early := s.At(at("10:00:00"))
	assert.Equal(t, 100.0, early.Intensity.GPerKWh())
	assert.Contains(t, DescribeSources([]Factor{early}), "its first value")
	for bad, why := range map[string]string{
		"": "no line in it", "12:00": "wrong number of fields", "noon,5\n1,2": "line 1", "12:00,x\n12:00,y": "line 2", "12:00,5\n2026-11-25T11:00:00Z,5": "only one of them",
		"12:00,-5": "not a number of gCO2e/kWh", "12:00,NaN": "not a number",
	} {
		_, err := ReadProfile(strings.NewReader(bad), "x.csv", time.UTC)
		assert.ErrorContains(t, err, why, bad)
	}
}
