package recompute

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/mlflow"
)

// server is a tracking server with some runs, which keeps what is written into them.
type server struct {
	runs    []mlflow.Run
	written map[string]map[string]float64
	tags    map[string]map[string]string
}

func (s *server) SearchRuns(context.Context, mlflow.Caller, mlflow.RunQuery) ([]mlflow.Run, string, error) {
	return s.runs, "", nil
}

func (s *server) LogBatch(_ context.Context, _ mlflow.Caller, body []byte) error {
	var b struct {
		RunID   string `json:"run_id"`
		Metrics []struct {
			Key   string
			Value float64
			Step  int64
		}
		Tags []mlflow.Tag
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return err
	}
	s.written[b.RunID], s.tags[b.RunID] = map[string]float64{}, map[string]string{}
	for _, m := range b.Metrics {
		s.written[b.RunID][m.Key] = m.Value
	}
	for _, t := range b.Tags {
		s.tags[b.RunID][t.Key] = t.Value
	}
	return nil
}

func metrics(values map[string]float64) map[string]mlflow.Metric {
	all := map[string]mlflow.Metric{}
	for k, v := range values {
		all[k] = mlflow.Metric{Key: k, Value: v, Step: 6000}
	}
	return all
}

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// exemplary is a run of 2 kWh from 11:40 to 13:20, the last 0.4 kWh of it for 800 predictions, at 400 g/kWh and a PUE of 1.25.
func exemplary() mlflow.Run {
	l := carbon.Ledger{
		"training":  {{Start: noon.Add(-20 * time.Minute), End: noon.Add(time.Hour), KWh: 1.6}},
		"inference": {{Start: noon.Add(time.Hour), End: noon.Add(80 * time.Minute), KWh: 0.4}},
	}
	return mlflow.Run{ID: "r1", Name: "first", Status: "FINISHED", Start: noon.Add(-20 * time.Minute),
		Metrics: metrics(map[string]float64{
			metricEmissions: 1000, metricTraining: 800, metricInference: 200, metricEnergy: 2, metricDuration: 6000, metricFacility: 2.5,
			metricLow: 900, metricHigh: 1100, metricInferLow: 100, metricInferHigh: 300, metricAccuracy: 90.0 / 800, metricInferences: 10 * 200.0 / 800, metricSCI: 0.25 + 0.1,
		}),
		Tags: map[string]string{tagVersion: "0.1.0", tagStatus: "measured", tagIntensity: "400", tagSource: "set by --carbon-intensity", tagPUE: "1.25",
			tagLocation: "world", tagSlices: l.Encode(5000)},
	}
}

func supply(t *testing.T, place string) *carbon.Supply {
	t.Helper()
	p, err := carbon.Locate(place)
	require.NoError(t, err)
	s, err := carbon.NewSupply(p, nil, nil)
	require.NoError(t, err)
	return s
}

// What if the run had been in Sweden? All that follows from grams must follow from the new ones, and nothing may be
// written before it is asked for.
func TestARunElsewhere(t *testing.T) {
	t.Parallel()
	run := exemplary()
	run.Metrics[metricSDKEmissions], run.Metrics[metricSDKInferences] = mlflow.Metric{Value: 800}, mlflow.Metric{Value: 7} // the latter the client's
	s := &server{runs: []mlflow.Run{run}, written: map[string]map[string]float64{}, tags: map[string]map[string]string{}}
	q := Question{Supply: supply(t, "SWE"), Relocate: true, KeepPUE: true}
	g := q.Supply.At(noon).Intensity.GPerKWh()
	answers, err := Ask(context.Background(), s, mlflow.Caller{}, "1", q)
	require.NoError(t, err)
	require.Len(t, answers, 1)
	a := answers[0]
	assert.InDelta(t, 1000, a.Was.Grams(), 1e-9)
	assert.InDelta(t, 2*1.25*g, a.Now.Grams(), 1e-6)
	assert.Empty(t, s.written)

	n, err := Write(context.Background(), s, mlflow.Caller{}, answers, noon)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	for key, want := range map[string]float64{
		metricEmissions: 2.5 * g, metricTraining: 2 * g, metricInference: 0.5 * g, metricFacility: 2.5, metricLow: 0.9 * 2.5 * g, metricHigh: 1.1 * 2.5 * g, metricInferLow: 0.25 * g, metricInferHigh: 0.75 * g,
		metricSDKEmissions: 2 * g, metricAccuracy: 90 / (2 * g), metricInferences: 10 * 0.5 * g / 800, metricSCI: 0.5*g/800 + 0.1,
	} {
		assert.InDelta(t, want, s.written["r1"][key], 1e-6*want, key)
	}
	assert.NotContains(t, s.written["r1"], metricEnergy, "what was measured stays")
	assert.NotContains(t, s.written["r1"], metricSDKInferences)
	tags := s.tags["r1"]
	assert.Equal(t, "SWE", tags[tagLocation])
	assert.Equal(t, "1.25", tags[tagPUE])
	assert.Contains(t, tags[tagSource], "Our World in Data")
	assert.Equal(t, "lifecycle, average", tags[tagKind])
	assert.Equal(t, "2026-11-25T12:00:00Z; before: 1000 g, 400 g/kWh (set by --carbon-intensity), PUE 1.25, world", tags[tagRecomputed])
}

// Zero emissions give no ratio, and MLflow cannot take one back: it would have stood beside emissions of zero. A run that
// has none is written, with an interval of zero.
func TestARunWithoutEmissions(t *testing.T) {
	t.Parallel()
	run, plain := exemplary(), exemplary()
	plain.ID = "r0"
	delete(plain.Metrics, metricAccuracy)
	delete(plain.Metrics, metricInferences)
	s := &server{runs: []mlflow.Run{plain, run}, written: map[string]map[string]float64{}, tags: map[string]map[string]string{}}
	nothing := 0.0
	none, err := carbon.NewSupply(carbon.World(), &nothing, nil)
	require.NoError(t, err)
	answers, err := Ask(context.Background(), s, mlflow.Caller{}, "1", Question{Supply: none, KeepPUE: true})
	require.NoError(t, err)
	n, err := Write(context.Background(), s, mlflow.Caller{}, answers, noon)
	require.EqualError(t, err, "nothing was written: zero emissions give no accuracy_per_emission, and that of run r1 cannot be taken back")
	assert.Zero(t, n)
	assert.Empty(t, s.written)

	_, err = Write(context.Background(), s, mlflow.Caller{}, answers[:1], noon)
	require.NoError(t, err)
	for _, key := range []string{metricEmissions, metricLow, metricHigh, metricInferLow, metricInferHigh} {
		assert.Contains(t, s.written["r0"], key)
		assert.Zero(t, s.written["r0"][key], key)
	}
}

// At night: the energy of each hour meets the intensity of the hour that it is moved to.
func TestARunAtAnotherTime(t *testing.T) {
	t.Parallel()
	day, err := carbon.ReadProfile(strings.NewReader("00:00,50\n01:00,100\n06:00,300\n12:00,600\n"), "day.csv", time.UTC)
	require.NoError(t, err)
	q := Question{Supply: supply(t, "BEL"), Shift: 12 * time.Hour}
	q.Supply.FollowProfile(day)
	s := &server{runs: []mlflow.Run{exemplary()}}
	answers, err := Ask(context.Background(), s, mlflow.Caller{}, "1", q)
	require.NoError(t, err)
	// 1.6 kWh from 23:40 to 01:00, of which a quarter before midnight; 0.4 kWh from 01:00.
	assert.InDelta(t, 0.4*600+1.2*50+0.4*100, answers[0].Now.Grams(), 1e-6)
	var out strings.Builder
	require.NoError(t, Show(&out, answers, "table"))
	assert.Contains(t, out.String(), "-66.0 %")
	assert.Contains(t, out.String(), "profile day.csv (as given)")
}

// provider has a value for each hour, and counts how often it is asked.
type provider struct{ asked int }

func (*provider) Name() string { return "a provider" }
func (p *provider) Factors(_ context.Context, from, to time.Time) ([]carbon.Factor, error) {
	p.asked++
	var all []carbon.Factor
	for at := from.Truncate(time.Hour); at.Before(to); at = at.Add(time.Hour) {
		all = append(all, carbon.Factor{Intensity: carbon.Intensity(100 * at.Hour()), Source: "a provider", Start: at, End: at.Add(time.Hour), Basis: carbon.Direct, Signal: carbon.Average})
	}
	return all, nil
}

func TestARunByAProvidersHistory(t *testing.T) {
	t.Parallel()
	p := &provider{}
	feed := carbon.NewFeed(p, slog.New(slog.DiscardHandler))
	q := Question{Supply: supply(t, "BEL"), Feed: feed}
	q.Supply.Follow(feed)
	s := &server{runs: []mlflow.Run{exemplary(), exemplary()}}
	answers, err := Ask(context.Background(), s, mlflow.Caller{}, "1", q)
	require.NoError(t, err)
	assert.InDelta(t, 0.4*1100+1.2*1200+0.4*1300, answers[0].Now.Grams(), 1e-6)
	assert.Equal(t, 1, p.asked, "once for all runs of a day")
}

// A nested run is inside of its parent: a sum over both would have it twice.
func TestTheSumHasNestedRunsOnce(t *testing.T) {
	t.Parallel()
	parent, child := exemplary(), exemplary()
	child.ID, child.Tags[tagParent] = "r2", "r1"
	answers, err := Ask(context.Background(), &server{runs: []mlflow.Run{parent, child}}, mlflow.Caller{}, "1", Question{Supply: supply(t, "SWE")})
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, Show(&out, answers, "table"))
	assert.Regexp(t, `(?m)^all +1000 +81\.39 `, out.String())
}

// Runs without figures must be left alone and said to be; a run of an older version, without slices, is taken as even.
func TestWhatCannotBeWorkedOut(t *testing.T) {
	t.Parallel()
	change := func(f func(*mlflow.Run)) mlflow.Run {
		r := exemplary()
		f(&r)
		return r
	}
	s := &server{written: map[string]map[string]float64{}, tags: map[string]map[string]string{}, runs: []mlflow.Run{
		change(func(r *mlflow.Run) { r.Tags = nil }),
		change(func(r *mlflow.Run) { r.Status = "RUNNING" }),
		change(func(r *mlflow.Run) { r.Tags[tagStatus] = "unmeasured: elsewhere" }),
		change(func(r *mlflow.Run) { delete(r.Metrics, metricEnergy) }),
		change(func(r *mlflow.Run) { r.Tags[tagSlices] = "{hostile"; r.Name = "=1+1\x1b[2J" }),
		change(func(r *mlflow.Run) {
			r.Tags[tagSlices] = carbon.Ledger{"training": {{Start: noon, End: noon.Add(time.Hour), KWh: 3}}}.Encode(5000)
		}),
		change(func(r *mlflow.Run) {
			r.Tags[tagClientMetrics] = "emissions_g"
			r.Metrics[metricEmissions] = mlflow.Metric{Value: 7}
		}),
	}}
	answers, err := Ask(context.Background(), s, mlflow.Caller{}, "1", Question{Supply: supply(t, "SWE")})
	require.NoError(t, err)
	var why []string
	for _, a := range answers {
		why = append(why, a.Why)
	}
	assert.Equal(t, []string{"not metered", "not over yet", "unmeasured: elsewhere", "it keeps no energy", "", "", ""}, why)
	assert.True(t, answers[4].Even)
	g := answers[4].supply.At(noon).Intensity.GPerKWh()
	assert.InDelta(t, 2*g, answers[4].Now.Grams(), 1e-9)
	assert.InDelta(t, 0.4*g, answers[4].inference.Grams(), 1e-9)
	assert.True(t, answers[5].Even)
	assert.InDelta(t, 2*g, answers[5].Now.Grams(), 1e-9, "the energy that was measured counts")
	n, err := Write(context.Background(), s, mlflow.Caller{}, answers[6:], noon)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	assert.NotContains(t, s.written["r1"], metricEmissions, "the client's own figure stays")
	for _, format := range []string{"table", "csv", "json"} {
		var out strings.Builder
		require.NoError(t, Show(&out, answers, format))
		assert.NotContains(t, out.String(), "\x1b", format)
		assert.NotContains(t, out.String(), "\n=", format)
		assert.Contains(t, out.String(), "not metered", format)
	}
	var out strings.Builder
	require.NoError(t, Show(&out, answers, "csv"))
	assert.Contains(t, out.String(), "'=1+1")
}
