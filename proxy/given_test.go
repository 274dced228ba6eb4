package proxy

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where the predictions stand in the data, nothing is predicted, and a figure of it would be made up; where a logged model is
// evaluated, a column of such a name is a feature.
func TestEvaluationOfPredictionsInTheData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		column  string
		logged  bool
		byPhase bool // the user switches
		counted bool
	}{
		{"x", false, false, true},
		{"x", true, false, true},
		{"predictions", false, false, false},
		{"predictions", true, false, true},
		{"Y_pred", false, false, false},
		{"model.prediction", false, false, false},
		{"outputs", false, false, false},
		{"power_output", false, false, true},
		{"predictor", false, false, true},
		{"predictions", false, true, false},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			id := b.create("")
			if c.byPhase {
				b.tag(id, tagPhase, "inference")
			}
			schema, err := json.Marshal(`{"mlflow_colspec": [{"type": "long", "name": "y"}, {"type": "long", "name": "` + c.column + `"}]}`)
			require.NoError(t, err)
			b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"dataset":{"digest":"d","schema":`+string(schema)+`}}]}`)
			if c.logged {
				b.post("log-batch", `{"run_id":"`+id+`","tags":[{"key":"mlflow.datasets","value":"[]"}]}`)
			}
			b.work()
			b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"example_count","value":50}]}`)
			b.finish(id)
			r := b.mlflow.of(id)
			if c.counted {
				assert.InEpsilon(t, 10*r.metrics[metricInference]/50, r.metrics[metricInferences], 1e-9)
			} else {
				assert.NotContains(t, r.metrics, metricInferences)
				assert.Equal(t, c.byPhase, r.metrics[metricInference] > 0)
			}
		})
	}
}
