package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// inExperiment lets all runs be in experiment 7 with these tags, and returns how often who asked for it. A status
// other than 200 is its answer.
func inExperiment(b *bench, status int, tags map[string]string) (asked func() []string) {
	var mu sync.Mutex
	var who []string
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
		switch {
		case name == "set-experiment-tag":
			_, _ = w.Write([]byte("{}"))
			return true
		case strings.HasSuffix(r.URL.Path, "/experiments/get"):
			mu.Lock()
			who = append(who, r.Header.Get("Authorization")+" "+r.URL.RawQuery)
			mu.Unlock()
			list := []map[string]string{}
			for k, v := range tags {
				list = append(list, map[string]string{"key": k, "value": v})
			}
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"experiment": map[string]any{"tags": list}})
			return true
		case strings.HasSuffix(r.URL.Path, "/runs/get"):
			run := b.mlflow.of(r.URL.Query().Get("run_id"))
			metrics, tags := []map[string]any{}, []map[string]any{}
			for k, v := range run.metrics {
				metrics = append(metrics, map[string]any{"key": k, "value": v, "timestamp": 1})
			}
			for k, v := range run.tags {
				tags = append(tags, map[string]any{"key": k, "value": v})
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"run": map[string]any{"info": map[string]any{"run_id": r.URL.Query().Get("run_id"), "experiment_id": "7", "status": run.status},
				"data": map[string]any{"metrics": metrics, "tags": tags}}})
			return true
		}
		return false
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), who...)
	}
}

// keyTaken makes a run with two scores, and returns the key that was taken for its accuracy.
func (b *bench) keyTaken(tags string, caller string) string {
	b.t.Helper()
	id := b.create(tags)
	b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"test_accuracy","value":0.5,"timestamp":1,"step":0},{"key":"f1","value":0.25,"timestamp":1,"step":0},{"key":"r2_score","value":0.75,"timestamp":1,"step":0}]}`)
	b.send("/api/2.0/mlflow/runs/update", `{"run_id":"`+id+`","status":"FINISHED"}`, http.Header{"Authorization": {caller}})
	r := b.mlflow.of(id)
	key := r.tags[tagAccuracyKey]
	if key != "" {
		assert.InEpsilon(b.t, 100*r.metrics[key]/r.metrics[metricEmissions], r.metrics[metricAccuracy], 1e-9)
	}
	return key
}

func TestAnExperimentsWordOnAccuracy(t *testing.T) {
	t.Parallel()
	f1 := map[string]string{tagAccuracyMetric: "f1"}
	for _, c := range []struct {
		name       string
		experiment map[string]string
		flag       []string
		run        string
		want       string
	}{
		{"no word", nil, nil, "", "test_accuracy"},
		{"the flag's", nil, []string{"r2_score"}, "", "r2_score"},
		{"the experiment's before the flag's", f1, []string{"r2_score"}, "", "f1"},
		{"the run's before the experiment's", f1, []string{"test_accuracy"}, `{"key":"emissions.accuracy_metric","value":"r2_score"}`, "r2_score"},
		{"one that the run does not have is not overruled", map[string]string{tagAccuracyMetric: "auc"}, nil, "", ""},
	} {
		b := newBench(t, func(cfg *Config) { cfg.AccuracyMetrics = c.flag })
		inExperiment(b, http.StatusOK, c.experiment)
		assert.Equal(t, c.want, b.keyTaken(c.run, "a"), c.name)
	}
}

// A sweep's runs end one after the other: the experiment is read once, but for each of its users.
func TestAnExperimentIsReadOnceForEachCaller(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	asked := inExperiment(b, http.StatusOK, map[string]string{tagAccuracyMetric: "f1"})
	for _, caller := range []string{"a", "b", "a", "b", "a"} {
		assert.Equal(t, "f1", b.keyTaken("", caller))
	}
	assert.Equal(t, []string{"a experiment_id=7", "b experiment_id=7"}, asked())
	// What a client then says holds for the next run, not only after a minute.
	b.send("/api/2.0/mlflow/experiments/set-experiment-tag", `{}`, nil)
	b.keyTaken("", "a")
	assert.Len(t, asked(), 3)
	b.keyTaken(`{"key":"emissions.accuracy_metric","value":"r2_score"}`, "c")
	assert.Len(t, asked(), 3, "the run's own word is enough")
}

func TestAnExperimentThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for status, times := range map[int]int{http.StatusForbidden: 1, http.StatusServiceUnavailable: 2} {
		b := newBench(t, nil)
		asked := inExperiment(b, status, map[string]string{tagAccuracyMetric: "f1"})
		assert.Equal(t, "test_accuracy", b.keyTaken("", "a"))
		assert.Equal(t, "test_accuracy", b.keyTaken("", "a"))
		assert.Len(t, asked(), times, "%d: a refusal stands, a fault may be over", status)
	}
}

// A server that hangs on the experiment costs the ratio's key, never the client's time nor the figures.
func TestAnExperimentThatHangs(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	inExperiment(b, http.StatusOK, nil)
	usual := b.mlflow.hook
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
		if strings.HasSuffix(r.URL.Path, "/experiments/get") {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
			return true
		}
		return usual(w, r, name, body)
	}
	assert.Equal(t, "test_accuracy", b.keyTaken("", "a"))
}
