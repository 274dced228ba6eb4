package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// trace sends a trace of a run that lasted from start for a hundredth of a second, as MLflow's client does.
func (b *bench) trace(n int, run string, start time.Time, tags string) {
	b.t.Helper()
	code, _ := b.send("/api/3.0/mlflow/traces", fmt.Sprintf(`{"trace": {"trace_info": {"trace_id": "tr-%032x", "request_time": %q,
		"execution_duration": "0.010s", "state": "OK", "trace_metadata": {"mlflow.sourceRun": %q}, "tags": {"mlflow.traceName": "f"%s}}}}`,
		n, start.UTC().Format("2006-01-02T15:04:05.000Z"), run, tags), nil)
	require.Equal(b.t, 200, code)
}

// Each traced prediction counts once, however often its trace is sent and in whichever form, and only what the model did.
func TestTraces(t *testing.T) {
	t.Parallel()
	const evaluation = "an evaluation with scorers that are traced"
	const item = `, "mlflow.eval.requestId": "x"`
	spans := func(b *bench, header http.Header, n int, start time.Time) {
		body := fmt.Sprintf(`{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "%032x", "spanId": "%016x", "startTimeUnixNano": "%d",
			"endTimeUnixNano": "%d"}]}]}]}`, n, n, start.UnixNano(), start.Add(10*time.Millisecond).UnixNano())
		b.send("/v1/traces", body, header)
	}
	for _, c := range []struct {
		name, source string
		want         float64
		send         func(b *bench, id string, at time.Time)
	}{
		{"traced functions", sourceTraces, 3, func(b *bench, id string, at time.Time) {
			for n := range 3 {
				b.trace(n, id, at, "")
			}
		}},
		{"retries", sourceTraces, 1, func(b *bench, id string, at time.Time) {
			b.trace(1, id, at, "")
			b.trace(1, id, at, "")
		}},
		{"by OpenTelemetry's protocol", sourceTraces, 1, func(b *bench, id string, at time.Time) {
			spans(b, http.Header{runHeader: {id}}, 1, at)
		}},
		{"in both forms", sourceTraces, 1, func(b *bench, id string, at time.Time) {
			spans(b, http.Header{runHeader: {id}}, 1, at)
			b.trace(1, id, at, "")
		}},
		{"spans that name no run", "", 0, func(b *bench, _ string, at time.Time) { spans(b, http.Header{}, 1, at) }},
		{"another run's", "", 0, func(b *bench, _ string, at time.Time) { b.trace(1, "r9", at, "") }},
		{"of before the run", "", 0, func(b *bench, id string, at time.Time) { b.trace(1, id, at.Add(-time.Hour), "") }},
		{"of before the run, too", sourceTraces, 1, func(b *bench, id string, at time.Time) {
			b.trace(1, id, at.Add(-time.Hour), "")
			b.trace(2, id, at, "")
		}},
		{evaluation, sourceGenAI, 2, func(b *bench, id string, _ time.Time) {
			b.tag(id, tagRunType, runTypeEvaluation)
			at := time.Now().Add(time.Millisecond)
			b.work()
			b.trace(1, id, at, item)
			b.trace(2, id, at, item)
			b.trace(3, id, at, "")
		}},
		{"an evaluation of a client that does not say so", sourceGenAI, 1, func(b *bench, id string, at time.Time) {
			b.trace(1, id, at, item)
			b.trace(3, id, at.Add(10*time.Millisecond), "")
		}},
		{"predictions before an evaluation", sourceGenAI + "+" + sourceTraces, 2, func(b *bench, id string, at time.Time) {
			b.trace(1, id, at.Add(5*time.Millisecond), item)
			b.trace(3, id, at, "")
		}},
		{"one that is evaluated by mlflow.models.evaluate as well", sourceEvaluate, 50, func(b *bench, id string, _ time.Time) {
			b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"dataset":{}}]}`)
			at := time.Now()
			b.work() // the prediction
			b.trace(1, id, at, "")
			b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"example_count","value":50}]}`)
			b.trace(2, id, at, "")
		}},
		{"the user's count is the user's word", sourceTag, 7, func(b *bench, id string, at time.Time) {
			b.trace(1, id, at, "")
			b.tag(id, tagInferences, "7")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, late := range []bool{false, true} {
				b := newBench(t, nil)
				id := b.create("")
				at := time.Now()
				b.work()
				b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, _ string, _ []byte) bool {
					return strings.HasSuffix(r.URL.Path, "/traces")
				}
				whileRunning := c.name == evaluation || c.source == sourceEvaluate
				if late && !whileRunning {
					b.finish(id)
				}
				c.send(b, id, at)
				if !late || whileRunning {
					b.finish(id)
				}
				b.proxy.writers.Wait()
				r := b.mlflow.of(id)
				if c.want == 0 {
					assert.NotContains(t, r.metrics, metricInference)
					assert.NotContains(t, r.metrics, metricInferences)
					continue
				}
				assert.Equal(t, c.source, r.tags[tagInferenceSource])
				assert.Equal(t, formatCount(c.want), r.tags[tagInferences])
				require.Greater(t, r.metrics[metricInference], 0.0, "late: %v", late)
				assert.InEpsilon(t, 10*r.metrics[metricInference]/c.want, r.metrics[metricInferences], 1e-9)
				assert.InEpsilon(t, r.metrics[metricEmissions], r.metrics[metricTraining]+r.metrics[metricInference], 1e-9)
			}
		})
	}
}

// A run may make predictions for weeks, and be traced all the time.
func TestTracesAreForgotten(t *testing.T) {
	t.Parallel()
	c := newTracedCount()
	at := time.Now()
	for n := range 5 * manyTraces {
		s := span{trace: fmt.Sprint(n), start: at, end: at}
		require.Len(t, c.add(sourceTraces, []span{s}, true), 1)
		require.Empty(t, c.add(sourceTraces, []span{s}, true), "sent again")
	}
	assert.Equal(t, 5.0*manyTraces, c.by[sourceTraces])
	assert.LessOrEqual(t, len(c.seen.young)+len(c.seen.old), 2*manyTraces)
	assert.LessOrEqual(t, len(c.undecided), manyTraces)
}

// What traces counted before a restart of the proxy is counted after it, by the same name.
func TestTracesOutliveARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	at := time.Now()
	b.work()
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, _ string, _ []byte) bool {
		return strings.HasSuffix(r.URL.Path, "/traces")
	}
	b.trace(1, id, at, "")
	b.proxy.Drain(t.Context())
	again := b.killed(nil)
	at = time.Now()
	again.work()
	again.trace(2, id, at, "")
	again.finish(id)
	r := b.mlflow.of(id)
	assert.Equal(t, "2", r.tags[tagInferences])
	assert.Equal(t, sourceTraces, r.tags[tagInferenceSource])
	assert.InEpsilon(t, 10*r.metrics[metricInference]/2, r.metrics[metricInferences], 1e-9)
}

// A trace that comes while the run's last figures are written is in none of them, and counts all the same.
func TestATraceWhileTheRunEnds(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"get", "log-batch", "update"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			id := b.create("")
			at := time.Now()
			b.work()
			var once sync.Once
			b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
				if name == when {
					once.Do(func() { b.trace(1, id, at, "") })
				}
				return strings.HasSuffix(r.URL.Path, "/traces")
			}
			b.finish(id)
			b.proxy.writers.Wait()
			r := b.mlflow.of(id)
			assert.Equal(t, "1", r.tags[tagInferences])
			require.Greater(t, r.metrics[metricInference], 0.0)
			assert.InEpsilon(t, 10*r.metrics[metricInference], r.metrics[metricInferences], 1e-9)
			assert.InEpsilon(t, r.metrics[metricEmissions], r.metrics[metricTraining]+r.metrics[metricInference], 1e-9)
		})
	}
}

// Where the user says which phase it is, a prediction counts once, too, though its trace and the evaluation tell of it; and
// what is evaluated in training is no part of the inference phase that comes later.
func TestEvaluationsInAPhaseByTag(t *testing.T) {
	t.Parallel()
	for phase, want := range map[string]string{"inference": "107", "training": "7"} {
		b := newBench(t, nil)
		b.mlflow.hook = func(_ http.ResponseWriter, _ *http.Request, name string, _ []byte) bool { return name == "traces" }
		id := b.create("")
		b.tag(id, tagPhase, phase)
		b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"dataset":{"name":"test","digest":"d","schema":"{}"}}]}`)
		began := time.Now()
		b.work()
		b.trace(1, id, began, "") // by the evaluation
		b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"example_count","value":100,"timestamp":1,"step":0}]}`)
		b.tag(id, tagPhase, "inference")
		for n := range 7 {
			b.trace(2+n, id, time.Now(), "")
		}
		b.work()
		b.finish(id)
		assert.Equal(t, want, b.mlflow.of(id).tags[tagInferences], phase)
	}
}
