package proxy

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Dashboards made for mlflow-emissions-sdk go on: grams, of training and of ten predictions. Without the flag its names
// are nobody's, and a client may use them without being told that they are kept.
func TestSDKNames(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		b := newBench(t, func(c *Config) { c.SDKNames = on })
		id := b.create("")
		b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"inference"}`)
		b.work()
		b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.inferences","value":"20"}`)
		b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		m := b.mlflow.of(id).metrics
		require.Positive(t, m[metricInference])
		if !on {
			assert.NotContains(t, m, "emissions")
			assert.NotContains(t, m, "emissions_per_10_predictions")
			continue
		}
		assert.Equal(t, m[metricTraining], m["emissions"])
		assert.Less(t, m["emissions"], m[metricEmissions])
		assert.InEpsilon(t, m[metricInference]/2, m["emissions_per_10_predictions"], 1e-9)
		assert.Equal(t, m[metricInferences], m["emissions_per_10_predictions"])
	}
}

func TestAClientsOwnSDKNamesAreKept(t *testing.T) {
	t.Parallel()
	for on, tag := range map[bool]string{true: "emissions", false: ""} {
		b := newBench(t, func(c *Config) { c.SDKNames = on })
		id := b.create("")
		b.post("log-metric", `{"run_id":"`+id+`","key":"emissions","value":42}`)
		b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		r := b.mlflow.of(id)
		assert.Equal(t, 42.0, r.metrics["emissions"])
		assert.Equal(t, tag, r.tags[tagClientMetrics])
		assert.Positive(t, r.metrics[metricEmissions])
	}
}

// MLflow shows the value of the largest step: what we write at a run's end would hide what its client logs afterwards,
// as the SDK does.
func TestWhatAClientMayLogAfterTheEndHasNoStep(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.SDKNames = true })
	id := b.create(`{"key":"emissions.phase","value":"inference"},{"key":"emissions.inferences","value":"10"}`)
	b.proxy.find(id).base = totals{training: 1, duration: 100e9} // as if it had been metered for a while
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	var batch struct {
		Metrics []struct {
			Key  string
			Step int64
		}
	}
	require.NoError(t, json.Unmarshal(b.mlflow.of(id).batches[0], &batch))
	steps := map[string]int64{}
	for _, m := range batch.Metrics {
		steps[m.Key] = m.Step
	}
	for _, key := range []string{metricAccuracy, metricInferences, metricSDKEmissions, metricSDKInferences} {
		require.Contains(t, steps, key)
		assert.Zero(t, steps[key], key)
	}
	assert.GreaterOrEqual(t, steps[metricEmissions], int64(100), "a curve")
}
