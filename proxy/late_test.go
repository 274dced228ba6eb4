package proxy

import (
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func (b *bench) tag(id, key, value string) {
	b.t.Helper()
	code, _ := b.post("set-tag", `{"run_id":"`+id+`","key":"`+key+`","value":"`+value+`"}`)
	require.Equal(b.t, 200, code)
}

func (b *bench) finish(id string) {
	b.t.Helper()
	code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED","end_time":1}`)
	require.Equal(b.t, 200, code)
}

// The order of mlflow-emissions-sdk: the training run ends, then its accuracy is logged, then predictions are made. What
// they emit is the inference phase, and nothing of what the training emitted changes.
func TestPredictionsAfterTheEnd(t *testing.T) {
	t.Parallel()
	for _, countFirst := range []bool{true, false} {
		for _, by := range []string{"training", "end", "resume and end"} {
			b := newBench(t, nil)
			id := b.create("")
			b.finish(id)
			trained := b.mlflow.of(id)
			b.post("log-metric", `{"run_id":"`+id+`","key":"accuracy_on_test_data","value":0.5}`)
			if countFirst {
				b.tag(id, tagInferences, "40")
			}
			b.tag(id, tagPhase, "inference")
			require.Equal(t, 1, b.open())
			b.work()
			switch by {
			case "training":
				b.tag(id, tagPhase, "training")
			case "resume and end":
				b.post("update", `{"run_id":"`+id+`","status":"RUNNING","end_time":1}`)
				b.finish(id)
			default:
				b.finish(id)
			}
			require.Zero(t, b.open())
			if !countFirst {
				assert.NotContains(t, b.mlflow.of(id).metrics, metricInferences, "no count, no figure")
				b.tag(id, tagInferences, "40")
			}
			r := b.mlflow.of(id)
			assert.Equal(t, "FINISHED", r.status)
			assert.InEpsilon(t, trained.metrics[metricEmissions], r.metrics[metricTraining], 1e-9, by)
			assert.Greater(t, r.metrics[metricInference], 0.0)
			assert.InEpsilon(t, r.metrics[metricEmissions], r.metrics[metricTraining]+r.metrics[metricInference], 1e-9)
			assert.InEpsilon(t, 10*r.metrics[metricInference]/40, r.metrics[metricInferences], 1e-9)
			assert.InEpsilon(t, 50/r.metrics[metricTraining], r.metrics[metricAccuracy], 1e-9)
			assert.LessOrEqual(t, r.metrics[metricInferLow], r.metrics[metricInference])
			assert.GreaterOrEqual(t, r.metrics[metricInferHigh], r.metrics[metricInference])
			assert.Equal(t, statusMeasured, r.tags[tagStatus])
			assert.NotContains(t, r.tags, tagClientMetrics)

			b.tag(id, tagPhase, "Inference") // and once more, as people write it
			b.work()
			b.tag(id, tagPhase, "Training ")
			again := b.mlflow.of(id)
			assert.InEpsilon(t, r.metrics[metricTraining], again.metrics[metricTraining], 1e-9)
			assert.Greater(t, again.metrics[metricInference], r.metrics[metricInference])
			assert.InEpsilon(t, 10*again.metrics[metricInference]/40, again.metrics[metricInferences], 1e-9)
		}
	}
}

// A proxy that does not know the run any more reads from it what it had.
func TestPredictionsAfterTheEndAndARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	trained := b.mlflow.of(id)
	again := newBench(t, func(c *Config) { c.Upstream, _ = url.Parse(b.mlflow.server.URL) })
	again.tag(id, tagPhase, "inference")
	again.tag(id, tagInferences, "40")
	again.work()
	again.tag(id, tagPhase, "training")
	r := b.mlflow.of(id)
	assert.InEpsilon(t, trained.metrics[metricEmissions], r.metrics[metricTraining], 1e-9)
	assert.InEpsilon(t, 10*r.metrics[metricInference]/40, r.metrics[metricInferences], 1e-9)
	assert.Equal(t, statusMeasured, r.tags[tagStatus])
}

// A client's own emissions_g is the client's after the end and a restart, too: the run says that it is.
func TestPredictionsAfterTheEndLeaveTheClientsMetric(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-metric", `{"run_id":"`+id+`","key":"emissions_g","value":42}`)
	b.finish(id)
	require.Equal(t, metricEmissions, b.mlflow.of(id).tags[tagClientMetrics])
	again := newBench(t, func(c *Config) { c.Upstream, _ = url.Parse(b.mlflow.server.URL) })
	again.tag(id, tagPhase, "inference")
	again.work()
	again.tag(id, tagPhase, "training")
	r := b.mlflow.of(id)
	assert.Equal(t, 42.0, r.metrics[metricEmissions])
	assert.Greater(t, r.metrics[metricInference], 0.0)
}

// Who predicts elsewhere cannot be metered here: the run says so, and keeps its figures.
func TestPredictionsAfterTheEndElsewhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	trained := b.mlflow.of(id)
	b.proxy.cfg.LocalClients = []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")}
	b.tag(id, tagPhase, "inference")
	assert.Zero(t, b.open())
	r := b.mlflow.of(id)
	assert.Equal(t, trained.metrics, r.metrics)
	assert.Contains(t, r.tags[tagStatus], "partial: predictions after its end: unmeasured: the client 127.0.0.1 is on another machine")
}

// Who sets the tag on MLflow's page is a browser, which predicts nothing.
func TestABrowserDoesNotPredict(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	code, _ := b.send("/ajax-api/2.0/mlflow/runs/set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"inference"}`, nil)
	require.Equal(t, 200, code)
	assert.Zero(t, b.open())
}

// What a run uses while it rests counts only if it goes on.
func TestRest(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	b.tag(id, tagPhase, "inference")
	b.tag(id, tagInferences, "40")
	b.work()
	r := b.proxy.find(id)
	b.proxy.rest(r, true)
	record := r.session.Record()
	before := record.Energy()
	b.work()
	b.proxy.rest(r, false)
	record = r.session.Record()
	assert.Greater(t, record.Energy().Total(), before.Total())
	b.proxy.rest(r, true)
	record = r.session.Record()
	fixed := b.proxy.reckon(record).inference
	b.work()
	b.proxy.endLate(r, r.caller) // as after some minutes
	assert.InEpsilon(t, fixed.Grams(), b.mlflow.of(id).metrics[metricInference], 1e-9)
}

// An accuracy of a test that comes late takes the place of one of the training; what is no accuracy costs no call.
func TestABetterAccuracyComesLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-metric", `{"run_id":"`+id+`","key":"training_accuracy","value":0.9}`)
	b.finish(id)
	require.Equal(t, "training_accuracy", b.mlflow.of(id).tags[tagAccuracyKey])
	calls := func() int {
		b.mlflow.mu.Lock()
		defer b.mlflow.mu.Unlock()
		return len(b.mlflow.calls)
	}
	before := calls()
	b.post("log-metric", `{"run_id":"`+id+`","key":"loss","value":0.9}`)
	assert.Equal(t, before+1, calls())
	b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"test_accuracy","value":0.5,"timestamp":1,"step":0}]}`)
	r := b.mlflow.of(id)
	assert.Equal(t, "test_accuracy", r.tags[tagAccuracyKey])
	assert.InEpsilon(t, 50/r.metrics[metricEmissions], r.metrics[metricAccuracy], 1e-9)
	b.post("log-metric", `{"run_id":"`+id+`","key":"r2_score","value":0.25}`)
	b.tag(id, tagAccuracyMetric, "r2_score")
	r = b.mlflow.of(id)
	assert.InEpsilon(t, 25/r.metrics[metricEmissions], r.metrics[metricAccuracy], 1e-9, "the user's word")
	b.post("log-metric", `{"run_id":"`+id+`","key":"r2_score","value":0.75}`)
	assert.InEpsilon(t, 75/r.metrics[metricEmissions], b.mlflow.of(id).metrics[metricAccuracy], 1e-9)
}

// A few predictions take milliseconds: the figure says so, and how far it may be off.
func TestABriefPhase(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for range 50 { // a machine that is busy with other things may take too long
		id := b.create("")
		b.tag(id, tagPhase, "inference")
		for end := time.Now().Add(5 * time.Millisecond); time.Now().Before(end); {
		}
		b.tag(id, tagPhase, "training")
		b.tag(id, tagInferences, "10")
		b.finish(id)
		r := b.mlflow.of(id)
		if r.tags[tagInferenceMethod] == methodReadings {
			continue
		}
		require.Greater(t, r.metrics[metricInference], 0.0)
		assert.Less(t, r.metrics[metricInferLow], r.metrics[metricInference]*0.7)
		assert.Greater(t, r.metrics[metricInferHigh], r.metrics[metricInference]*1.5)
		assert.Contains(t, r.tags[tagInferenceMethod], "CPU time x power of that second")
		assert.InEpsilon(t, r.metrics[metricInference], r.metrics[metricInferences], 1e-9)
		return
	}
	t.Fatal("no phase was brief")
}

// A run that shares the machine is not seen to do anything: that its client ends its predictions says that it did, and
// not only until a few seconds after the request before.
func TestPredictionsAfterTheEndOnASharedMachine(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"training", "end"} {
		b := newBench(t, nil)
		id := b.create("")
		b.finish(id)
		b.tag(id, tagPhase, "inference")
		r := b.proxy.find(id)
		b.proxy.rest(r, true) // as after some seconds without a request
		before := r.session.Record().Energy().Total()
		b.work()
		used := r.session.Record().Energy().Total()
		require.Equal(t, before, used)
		if by == "training" {
			b.tag(id, tagPhase, "training")
		} else {
			b.finish(id)
		}
		require.Zero(t, b.open())
		assert.Greater(t, r.session.Record().Energy().Total(), before, by)
		assert.InEpsilon(t, 400*r.session.Record().Energy().Total().KWh(), b.mlflow.of(id).metrics[metricInference], 1e-9, by)
	}
}

// An update that the server refused ends nothing, and does not make a run work that rests.
func TestARestingRunRestsAfterARefusedUpdate(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	b.tag(id, tagPhase, "inference")
	r := b.proxy.find(id)
	b.proxy.rest(r, true)
	before := r.session.Record().Energy()
	b.proxy.mu.Lock()
	r.ending++
	b.proxy.mu.Unlock()
	b.proxy.settle(&exchange{ending: r}, "")
	b.work()
	assert.Equal(t, before, r.session.Record().Energy())
	assert.Equal(t, 1, b.open())
}
