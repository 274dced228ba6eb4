package proxy

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A run that is created when it is over, as the candidates of a search are by autologging, would show the energy of the
// moment in which it was copied, and an absurd ratio.
func TestARunThatWasOverBeforeItWasCreatedHasNoFigures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end      func() string
		measured bool
	}{
		"over before":              {func() string { return fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli()) }, false},
		"over before, as a string": {func() string { return fmt.Sprintf("%q", fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli())) }, false},
		"over now":                 {func() string { return fmt.Sprint(time.Now().UnixMilli()) }, true},
		"over now, to the second":  {func() string { return fmt.Sprint(time.Now().Truncate(time.Second).UnixMilli()) }, true},
		"a placeholder":            {func() string { return "1" }, true},
		"given in seconds":         {func() string { return fmt.Sprint(time.Now().Add(-time.Hour).Unix()) }, true},
		"not said":                 {func() string { return "null" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			id := b.create("")
			b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
			code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED","end_time":`+c.end()+`}`)
			require.Equal(t, 200, code)
			r := b.mlflow.of(id)
			require.Equal(t, "FINISHED", r.status)
			if c.measured {
				assert.Equal(t, statusMeasured, r.tags[tagStatus])
				assert.Positive(t, r.metrics[metricAccuracy])
				return
			}
			assert.Equal(t, statusRecorded, r.tags[tagStatus])
			assert.Equal(t, map[string]float64{"test_accuracy": 0.5}, r.metrics)
			b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.6}`)
			b.proxy.writers.Wait()
			assert.NotContains(t, b.mlflow.of(id).metrics, metricAccuracy, "a late accuracy has nothing to be divided by")
		})
	}
}

// The server may refuse an update that says when the run ended; what the next one says counts.
func TestARefusedEndSaysNothingOfWhenTheRunEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	refused := false
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name != "update" || refused {
			return false
		}
		refused = true
		w.WriteHeader(http.StatusBadRequest)
		return true
	}
	b.mlflow.mu.Unlock()
	code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED","end_time":200000000000}`)
	require.Equal(t, http.StatusBadRequest, code)
	b.post("update", fmt.Sprintf(`{"run_id":%q,"status":"FINISHED","end_time":%d}`, id, time.Now().UnixMilli()))
	r := b.mlflow.of(id)
	assert.Equal(t, statusMeasured, r.tags[tagStatus])
	assert.Positive(t, r.metrics[metricEmissions])
}
