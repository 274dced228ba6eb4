package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

func TestInfersByName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"inference": true, "Inference": true, "inference-resnet50": true, "batch_inference": true, "model inference 7": true, "inferences": true,
		"": false, "causal-inference": false, "predict-churn": false, "bold-ape-12": false, "inferencer": false, "train model inference": false,
	} {
		assert.Equal(t, want, infersByName(name), name)
	}
}

// A run of its own that is there to predict has no training: its accuracy is that of a model that was trained elsewhere.
func TestARunThatOnlyPredicts(t *testing.T) {
	t.Parallel()
	for _, tags := range []string{`{"key":"emissions.phase","value":"inference"}`, `{"key":"emissions.phase","value":" Inference "}`, `{"key":"mlflow.runName","value":"inference-1"}`} {
		b := newBench(t, nil)
		id := b.create(tags)
		b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
		b.tag(id, tagInferences, "20")
		b.finish(id)
		r := b.mlflow.of(id)
		assert.Zero(t, r.metrics[metricTraining])
		assert.InEpsilon(t, r.metrics[metricEmissions], r.metrics[metricInference], 1e-9)
		assert.InEpsilon(t, 10*r.metrics[metricEmissions]/20, r.metrics[metricInferences], 1e-9)
		assert.NotContains(t, r.metrics, metricAccuracy)
	}
}

// An evaluation in a run that is there to predict does not make the rest of it training.
func TestAnEvaluationInARunThatOnlyPredicts(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create(`{"key":"mlflow.runName","value":"inference"}`)
	b.work()
	b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[],"dataset":{}}]}`)
	b.work()
	b.post("log-metric", `{"run_id":"`+id+`","key":"example_count","value":30}`)
	b.work()
	b.finish(id)
	r := b.mlflow.of(id)
	assert.Zero(t, r.metrics[metricTraining])
	assert.InEpsilon(t, 10*r.metrics[metricEmissions]/30, r.metrics[metricInferences], 1e-9)
}

// The end of a run that is nested in one that is there to predict does not make the rest of that training.
func TestANestedRunInARunThatOnlyPredicts(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	outer := b.create(`{"key":"mlflow.runName","value":"inference"}`)
	inner := b.create(`{"key":"mlflow.parentRunId","value":"` + outer + `"},{"key":"mlflow.runName","value":"inference 1"}`)
	b.finish(inner)
	b.work()
	b.finish(outer)
	assert.Zero(t, b.mlflow.of(outer).metrics[metricTraining])
}

// A nested run that predicts is its parent's inference phase, and its predictions are the parent's, too: if they were
// counted.
func TestANestedRunThatPredicts(t *testing.T) {
	t.Parallel()
	for _, counted := range []bool{true, false} {
		b := newBench(t, nil)
		parent := b.create("")
		b.post("log-metric", `{"run_id":"`+parent+`","key":"test_accuracy","value":0.5}`)
		var grams float64
		for i := range 2 {
			child := b.create(`{"key":"mlflow.parentRunId","value":"` + parent + `"},{"key":"mlflow.runName","value":"inference ` + fmt.Sprint(i) + `"}`)
			if counted || i == 0 {
				b.tag(child, tagInferences, "20")
			}
			b.finish(child)
			grams += b.mlflow.of(child).metrics[metricInference]
			b.work() // training goes on
		}
		b.finish(parent)
		r := b.mlflow.of(parent)
		assert.Greater(t, r.metrics[metricTraining], 0.0)
		assert.GreaterOrEqual(t, r.metrics[metricInference], 0.99*grams, "and the moments in which the child's end is written")
		assert.InEpsilon(t, 50/r.metrics[metricTraining], r.metrics[metricAccuracy], 1e-9)
		if counted {
			assert.InEpsilon(t, 10*r.metrics[metricInference]/40, r.metrics[metricInferences], 1e-9)
			assert.Equal(t, sourceNested, r.tags[tagInferenceSource])
			assert.Equal(t, "40", r.tags[tagInferences])
		} else {
			assert.NotContains(t, r.metrics, metricInferences, "of one of them nobody knows how many it made")
		}
	}
}

// Predictions that traces tell of, once each, at whatever time: while the run goes on, and after its end.
func TestTracedPredictions(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	began := time.Now()
	b.work()
	between := time.Now()
	spans := []span{{"t1", began, between}, {"t2", began, between}}
	b.proxy.predicted(id, mlflow.Caller{}, "traces", spans)
	b.proxy.predicted(id, mlflow.Caller{}, "traces", spans) // a retry
	b.work()
	b.finish(id)
	r := b.mlflow.of(id)
	require.Greater(t, r.metrics[metricInference], 0.0)
	require.Greater(t, r.metrics[metricTraining], 0.0)
	assert.InEpsilon(t, 10*r.metrics[metricInference]/2, r.metrics[metricInferences], 1e-9)
	assert.Equal(t, "traces", r.tags[tagInferenceSource])

	b.proxy.predicted(id, mlflow.Caller{}, "traces", []span{{"t3", between, time.Now()}})
	b.proxy.writers.Wait()
	late := b.mlflow.of(id)
	assert.Equal(t, "3", late.tags[tagInferences])
	assert.Greater(t, late.metrics[metricInference], r.metrics[metricInference])
	assert.InEpsilon(t, r.metrics[metricEmissions], late.metrics[metricTraining]+late.metrics[metricInference], 1e-9)
	assert.InEpsilon(t, 10*late.metrics[metricInference]/3, late.metrics[metricInferences], 1e-9)
}

// A model that is traced while it is evaluated predicts no more for that.
func TestTracesOfAnEvaluationCountOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[],"dataset":{}}]}`)
	from := time.Now()
	b.work()
	b.proxy.predicted(id, mlflow.Caller{}, "traces", []span{{"t1", from, time.Now()}})
	b.post("log-metric", `{"run_id":"`+id+`","key":"example_count","value":30}`)
	outside := time.Now()
	b.work()
	b.proxy.predicted(id, mlflow.Caller{}, "traces", []span{{"t2", outside, time.Now()}})
	b.finish(id)
	r := b.mlflow.of(id)
	assert.Equal(t, "31", r.tags[tagInferences])
	assert.Equal(t, "mlflow.models.evaluate+traces", r.tags[tagInferenceSource])
}
