package proxy

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// Only what is under /emissions/ is ours to answer: all else is the server's, however much it looks like it.
func TestOnlyOurOwnPathIsAnswered(t *testing.T) {
	t.Parallel()
	var client *mlflow.Client
	b := newBench(t, func(c *Config) {
		c.Pages = func(given *mlflow.Client) http.Handler {
			client = given
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ours") })
		}
	})
	without := newBench(t, nil)
	for path, ours := range map[string]bool{
		"/emissions/": true, "/emissions/api/experiments/1/runs": true, "/emissions/static/page.js": true,
		"/emissions": false, "/emissionsx/": false, "/Emissions/": false, "/x/emissions/": false, "//emissions/": false, "/": false, "/health": false, "/version": false,
	} {
		assert.Equal(t, ours, text(t, do(t, http.MethodGet, b.url+path, nil, nil)) == "ours", path)
		assert.NotEqual(t, "ours", text(t, do(t, http.MethodGet, without.url+path, nil, nil)), path)
	}
	id := b.create("")
	run, err := client.Run(t.Context(), mlflow.Caller{}, id)
	require.NoError(t, err)
	assert.Equal(t, id, run.ID, "what is given asks the upstream")
}

// The comparison must show the accuracy that the ratio was made of, which may be an error rate's complement; and of runs
// that have no figures what would have been taken.
func TestAccuracyAsItWasTaken(t *testing.T) {
	t.Parallel()
	run := func(tags map[string]string) mlflow.Run {
		return mlflow.Run{Tags: tags, Params: map[string]string{"objective": "multi:softmax"}, Metrics: map[string]mlflow.Metric{
			"test_accuracy": {Key: "test_accuracy", Value: 0.9}, "mine": {Key: "mine", Value: 0.5}, "validation_1-merror": {Key: "validation_1-merror", Value: 0.25},
		}}
	}
	for _, c := range []struct {
		tags    map[string]string
		named   []string
		percent float64
	}{
		{nil, nil, 90}, {nil, []string{"mine"}, 50}, {map[string]string{tagAccuracyMetric: "mine"}, nil, 50},
		{map[string]string{tagAccuracyKey: "validation_1-merror"}, nil, 75}, {map[string]string{tagAccuracyKey: "mine", tagAccuracyMetric: "test_accuracy"}, nil, 50},
	} {
		percent, _, ok := Accuracy(run(c.tags), c.named)
		assert.True(t, ok)
		assert.InDelta(t, c.percent, percent, 1e-9, c)
	}
}
