package proxy

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// grid is a provider of intensity whose values a test sets.
type grid struct {
	mu      sync.Mutex
	factors []carbon.Factor
}

func (g *grid) Name() string { return "the grid" }

func (g *grid) Factors(context.Context, time.Time, time.Time) ([]carbon.Factor, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.factors, nil
}

// says sets the value of a stretch of time.
func (g *grid) says(start, end time.Time, gPerKWh float64, signal carbon.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.factors = append(g.factors, carbon.Factor{Intensity: carbon.Intensity(gPerKWh), Source: "the grid", Start: start, End: end, Basis: carbon.Direct, Signal: signal})
}

// on makes a bench whose electricity follows a grid. fetch brings in what the grid says by then.
func on(t *testing.T, g *grid, pue float64, change func(*Config)) (b *bench, fetch func()) {
	t.Helper()
	feed := carbon.NewFeed(g, slog.New(slog.DiscardHandler))
	fetch = func() { require.NoError(t, feed.Fetch(t.Context(), time.Time{}, time.Time{})) }
	fetch()
	place, err := carbon.Locate("BEL")
	require.NoError(t, err)
	supply, err := carbon.NewSupply(place, nil, &pue)
	require.NoError(t, err)
	supply.Follow(feed)
	return newBench(t, func(c *Config) {
		c.Supply = supply
		if change != nil {
			change(c)
		}
	}), fetch
}

// hours makes the record of a run from 11:40 to 13:20 at 1.2 kW, in slices of five minutes, of which the machine used
// four times as much; the last 20 minutes are for predictions.
func hours(day time.Time) meter.Record {
	r := meter.Record{Scope: meter.ScopeProcess, Machine: 4 * meter.FromKWh(2)}
	for i, phase := range []meter.Phase{meter.Training, meter.Inference} {
		start, end := day.Add(11*time.Hour+40*time.Minute), day.Add(13*time.Hour)
		if i == 1 {
			start, end = day.Add(13*time.Hour), day.Add(13*time.Hour+20*time.Minute)
		}
		g := meter.Segment{Phase: phase, Start: start, End: end}
		for at := start; at.Before(end); at = at.Add(5 * time.Minute) {
			g.Slices = append(g.Slices, meter.Slice{Start: at, End: at.Add(5 * time.Minute), Energy: meter.Energies{meter.CPU: meter.FromKWh(0.1)}})
		}
		r.Segments = append(r.Segments, g)
	}
	return r
}

// written returns what would be written into a run.
func (b *bench) written(r *run, record meter.Record, now *mlflow.Run) (map[string]float64, map[string]string) {
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	f := b.proxy.figuresOf(r, record, now, time.Now())
	metrics, tags := map[string]float64{}, map[string]string{}
	for _, m := range f.metrics {
		metrics[m.Key] = m.Value
	}
	for _, t := range f.tags {
		tags[t.Key] = t.Value
	}
	return metrics, tags
}

// A run over steps of the intensity, times PUE, exactly; by the value of one moment it was off by as much as that differs.
func TestGramsAcrossStepsOfTheIntensity(t *testing.T) {
	t.Parallel()
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	g := &grid{}
	g.says(day.Add(11*time.Hour), day.Add(12*time.Hour), 100, carbon.Average)
	g.says(day.Add(12*time.Hour), day.Add(12*time.Hour+35*time.Minute+30*time.Second), 300, carbon.Average) // within a slice
	g.says(day.Add(12*time.Hour+35*time.Minute+30*time.Second), day.Add(13*time.Hour), 700, carbon.Average)
	g.says(day.Add(13*time.Hour), day.Add(14*time.Hour), 50, carbon.Average)
	b, _ := on(t, g, 1.25, nil)
	metrics, tags := b.written(newRun("r"), hours(day), nil)
	training := 1.25 * (0.4*100 + 1.2*(35.5*300+24.5*700)/60)
	inference := 1.25 * 0.4 * 50
	assert.InDelta(t, training+inference, metrics[metricEmissions], 1e-9)
	assert.InDelta(t, training, metrics[metricTraining], 1e-9)
	assert.InDelta(t, inference, metrics[metricInference], 1e-9)
	assert.InDelta(t, 2, metrics[metricEnergy], 1e-12, "of the machine")
	assert.InDelta(t, 2.5, metrics[metricFacility], 1e-12, "with the data centre's overhead")
	assert.Equal(t, formatCount((training+inference)/2.5), tags[tagIntensity], "the mean by energy")
	assert.Equal(t, "direct, average", tags[tagIntensityKind])
	assert.Contains(t, tags[tagIntensitySource], "the grid, ")
	assert.Contains(t, tags[tagIntensitySource], "T11:00Z to ")
	assert.Equal(t, "BEL", tags[tagLocation])
	l, err := carbon.DecodeLedger(tags[tagSlices])
	require.NoError(t, err)
	var again carbon.Mass
	for _, u := range l["training"] {
		again += b.proxy.cfg.Supply.Emissions(u.Start, u.End, u.KWh)
	}
	assert.InDelta(t, training, again.Grams(), 1e-6, "the run keeps what it takes to work this out again")
	assert.Len(t, l["inference"], 4)
	assert.NotContains(t, metrics, metricEmbodied, "not known")
	assert.NotContains(t, metrics, metricSCI)
}

// What is marginal, or of a table, must not pass for the average of the hour.
func TestMixedKindsOfIntensityAreTagged(t *testing.T) {
	t.Parallel()
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	g := &grid{}
	g.says(day.Add(12*time.Hour), day.Add(14*time.Hour), 300, carbon.Marginal)
	b, _ := on(t, g, 1, nil)
	_, tags := b.written(newRun("r"), hours(day), nil)
	assert.Equal(t, "mixed: lifecycle, average; direct, marginal", tags[tagIntensityKind])
	assert.Contains(t, tags[tagIntensitySource], "Our World in Data / Ember 2023 (lifecycle) (since the grid has no value for the time); the grid, ")
}

// A run that is resumed elsewhere, or later, has the sum of both: its grams, its energy over time, and what they come from.
func TestAResumedRunKeepsItsElectricity(t *testing.T) {
	t.Parallel()
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	g := &grid{}
	g.says(day, day.Add(24*time.Hour), 100, carbon.Average)
	b, _ := on(t, g, 1.5, nil)
	metrics, tags := b.written(newRun("r"), hours(day), nil)
	assert.Equal(t, "100", tags[tagIntensity])
	before := mlflow.Run{ID: "r", Tags: tags, Metrics: map[string]mlflow.Metric{}}
	for key, v := range metrics {
		before.Metrics[key] = mlflow.Metric{Key: key, Value: v}
	}
	tags[tagVersion] = "test"

	forced := 400.0
	supply, err := carbon.NewSupply(carbon.World(), &forced, nil)
	require.NoError(t, err)
	b.proxy.cfg.Supply = supply
	r := newRun("r")
	r.base = earlier(before)
	later := hours(day.Add(2 * time.Hour))
	metrics, tags = b.written(r, later, nil)
	assert.InDelta(t, 300+800, metrics[metricEmissions], 1e-9)
	assert.InDelta(t, 4, metrics[metricEnergy], 1e-9)
	assert.InDelta(t, 5, metrics[metricFacility], 1e-9)
	assert.Equal(t, "220", tags[tagIntensity])
	assert.Equal(t, "mixed: direct, average; as given", tags[tagIntensityKind])
	assert.Contains(t, tags[tagIntensitySource], "; set by --carbon-intensity")
	l, err := carbon.DecodeLedger(tags[tagSlices])
	require.NoError(t, err)
	assert.InDelta(t, 4, l.KWh(), 1e-8)
	assert.Len(t, l["training"], 2*16)
}

// Software Carbon Intensity: the run's part of the machine, by energy, of what making it emitted, by time.
func TestEmbodiedCarbonAndSCI(t *testing.T) {
	t.Parallel()
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour)
	g := &grid{}
	g.says(day, day.Add(24*time.Hour), 100, carbon.Average)
	embodied, err := carbon.EmbodiedGiven(1300, 4)
	require.NoError(t, err)
	b, _ := on(t, g, 1, func(c *Config) { c.Embodied = embodied })
	metrics, tags := b.written(newRun("r"), hours(day), &mlflow.Run{ID: "r", Tags: map[string]string{tagInferences: "800"}})
	m := 1300e3 * (100.0 / 60) / (4 * 365.2425 * 24) / 4
	assert.InDelta(t, m, metrics[metricEmbodied], 1e-9)
	assert.InDelta(t, (0.4*100+m*0.2)/800, metrics[metricSCI], 1e-9)
	for _, said := range []string{"ISO/IEC 21031:2024", "R = one inference", "1300 kg over 4 years (set by --embodied-kg)", "(0.25)", "not included: network"} {
		assert.Contains(t, tags[tagSCI], said)
	}
	record := hours(day)
	record.Machine = 0 // of which nothing is known
	metrics, tags = b.written(newRun("r"), record, nil)
	assert.NotContains(t, metrics, metricEmbodied)
	assert.NotContains(t, tags, tagSCI)
}

// A value that comes late corrects what an open run has emitted, from its beginning; nobody waits for it.
func TestLateValuesCorrectAnOpenRun(t *testing.T) {
	t.Parallel()
	g := &grid{}
	b, fetch := on(t, g, 1, nil)
	id := b.create("")
	b.proxy.mu.Lock()
	r := b.proxy.runs[id]
	b.proxy.mu.Unlock()
	b.proxy.logLive(t.Context(), r)
	place := b.proxy.cfg.Supply.Place()
	first := b.mlflow.of(id).metrics[metricEmissions]
	energy := r.session.Record().Energy().Total().KWh()
	require.InEpsilon(t, place.Intensity.GPerKWh()*energy, first, 0.5, "by the table, while nothing is known")
	g.says(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), 100*place.Intensity.GPerKWh(), carbon.Average)
	fetch()
	b.proxy.logLive(t.Context(), r)
	assert.Greater(t, b.mlflow.of(id).metrics[metricEmissions], 99*first)
	code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.Equal(t, 200, code)
	ended := b.mlflow.of(id)
	assert.InEpsilon(t, ended.metrics[metricEnergy]*100*place.Intensity.GPerKWh(), ended.metrics[metricEmissions], 1e-9)
	assert.Equal(t, "direct, average", ended.tags[tagIntensityKind])
}

// What recompute has written is the user's wish: an accuracy that comes late must not bring the first figures back, nor
// take the new ones for the client's.
func TestARecomputedRunIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"emissions_g","value":0.5,"timestamp":1,"step":0}],"tags":[{"key":"emissions.recomputed","value":"x"}]}`)
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	b.proxy.writers.Wait()
	r := b.mlflow.of(id)
	assert.Equal(t, 0.5, r.metrics[metricEmissions])
	assert.Empty(t, r.tags[tagClientMetrics])
}

// What a run says of the place that it ran at: the figure, whose and of when it is, what it counts, and the overhead.
func TestTagsOfPlaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ place, location, intensity, source, kind, pue string }{
		{"US-CA", "US-CA", "179.064", "EPA eGRID2023 STC2ERTA (lb/MWh x 0.45359237), 2023 (direct CO2e)", "direct, average", "1"},
		{"us-east-1", "aws:us-east-1", "244.758", "Virginia, where the region stands: EPA eGRID2023 STC2ERTA (lb/MWh x 0.45359237), 2023 (direct CO2e)", "direct, average", "1.14"},
		{"europe-west1", "gcp:europe-west1", "103.37", "Google Cloud region carbon data 2024 (direct)", "direct, average", "1.09"},
		{"SE-SE3", "SE-SE3", "27", "ENTSO-E generation per type 2025 x emission_factors.csv, 2025 (lifecycle)", "lifecycle, average", "1"},
		{"", "world", "475", "world average, since no location is known (IEA 2019, of 2018)", "direct, CO2 only, average", "1"},
	} {
		place := carbon.Here("") // unknown
		if c.place != "" {
			var err error
			place, err = carbon.Locate(c.place)
			require.NoError(t, err)
		}
		supply, err := carbon.NewSupply(place, nil, nil)
		require.NoError(t, err)
		b := newBench(t, func(cfg *Config) { cfg.Supply = supply })
		metrics, tags := b.written(newRun("r"), hours(time.Now().UTC().Truncate(24*time.Hour)), nil)
		assert.Equal(t, []string{c.location, c.intensity, c.source, c.kind, c.pue},
			[]string{tags[tagLocation], tags[tagIntensity], tags[tagIntensitySource], tags[tagIntensityKind], tags[tagPUE]})
		assert.InDelta(t, 2*supply.PUE()*place.Intensity.GPerKWh(), metrics[metricEmissions], 1e-9, c.location)
		assert.InDelta(t, 2*supply.PUE(), metrics[metricFacility], 1e-9, c.location)
	}
}
