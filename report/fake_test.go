package report

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// server is an MLflow server with one experiment, in memory. It pages as the real one does.
type server struct {
	*httptest.Server
	runs   []map[string]any
	refuse http.HandlerFunc // answers instead, if not nil

	mu       sync.Mutex
	requests []*http.Request
	searches []map[string]any
}

// asked returns what was asked since the last time, and the bodies of searches.
func (s *server) asked() (requests []*http.Request, searches []map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests, searches = s.requests, s.searches
	s.requests, s.searches = nil, nil
	return requests, searches
}

// refuses lets the server answer all that it is asked from now on in this way.
func (s *server) refuses(as http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = as
}

func newServer(t testing.TB, runs ...map[string]any) *server {
	t.Helper()
	s := &server{runs: runs}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		refuse(w, r)
		return
	}
	answer := map[string]any{}
	switch _, call, _ := strings.Cut(r.URL.Path, "/api/2.0/mlflow/"); call {
	case "experiments/get":
		answer["experiment"] = map[string]any{"experiment_id": r.URL.Query().Get("experiment_id"), "name": "pictures"}
	case "experiments/search":
		answer["experiments"] = []any{map[string]any{"experiment_id": "1", "name": "pictures", "last_update_time": 1700000000000}}
	case "runs/search":
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.mu.Lock()
		s.searches = append(s.searches, body)
		s.mu.Unlock()
		token, _ := body["page_token"].(string)
		from, _ := strconv.Atoi(token)
		to := min(len(s.runs), from+int(body["max_results"].(float64)))
		answer["runs"] = s.runs[from:to]
		if to < len(s.runs) {
			answer["next_page_token"] = fmt.Sprint(to)
		}
	case "metrics/get-history":
		answer["metrics"] = []any{map[string]any{"key": metricEmissions, "value": 0.5, "timestamp": 1000, "step": 1}, map[string]any{"key": metricEmissions, "value": 0.75, "timestamp": 2000, "step": 2}}
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) client(t testing.TB) *mlflow.Client {
	t.Helper()
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	return mlflow.NewClient(u, "", http.DefaultTransport)
}

func (s *server) source(t testing.TB) Source {
	return Source{Client: s.client(t), Accuracy: testAccuracy, RunURL: RunURLs("http://mlflow.example/", "")}
}

// testAccuracy stands in for the proxy's own choice.
func testAccuracy(r mlflow.Run) (percent float64, key string, ok bool) {
	m, ok := r.Metrics["test_accuracy"]
	return 100 * m.Value, "test_accuracy", ok
}

// get asks a page over the server.
func (s *server) get(t testing.TB, cfg Config, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	cfg.Client, cfg.Accuracy = s.client(t), testAccuracy
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler(cfg).ServeHTTP(w, r)
	return w
}

// wireRun is a run as the server sends it. metrics and tags are in pairs.
func wireRun(id string, metrics map[string]float64, tags map[string]string, params ...string) map[string]any {
	var m, g, p []any
	for k, v := range metrics {
		m = append(m, map[string]any{"key": k, "value": v, "timestamp": 1700000000000, "step": 7})
	}
	for k, v := range tags {
		g = append(g, map[string]any{"key": k, "value": v})
	}
	for i := 0; i+1 < len(params); i += 2 {
		p = append(p, map[string]any{"key": params[i], "value": params[i+1]})
	}
	return map[string]any{
		"info": map[string]any{"run_id": id, "run_name": "name of " + id, "experiment_id": "1", "user_id": "ada", "status": "FINISHED", "start_time": 1700000000000, "end_time": 1700000060000},
		"data": map[string]any{"metrics": m, "tags": g, "params": p},
	}
}

// measuredRun is a run with all figures.
func measuredRun(id string, grams, accuracy float64, tags ...string) map[string]any {
	all := map[string]string{tagStatus: "measured", tagVersion: "0.1.0", tagHost: "here", tagLocation: "BEL", "emissions.method.cpu": "rapl", "emissions.method.ram": "model:resident", tagIntensity: "150", tagPUE: "1"}
	for i := 0; i+1 < len(tags); i += 2 {
		all[tags[i]] = tags[i+1]
	}
	return wireRun(id, map[string]float64{
		metricEmissions: grams, "test_accuracy": accuracy, metricLow: grams * 0.8, metricHigh: grams * 1.3, metricEnergy: grams / 150, metricCPU: grams / 200, metricRAM: grams / 600,
		metricDuration: 60, metricAccuracy: 100 * accuracy / grams, metricInferences: grams / 1000,
	}, all, "n_params", "25,600,000")
}

// load compares the runs of a server.
func load(t testing.TB, s *server, q Query) Comparison {
	t.Helper()
	if q.Experiments == nil {
		q.Experiments = []string{"1"}
	}
	c, err := Load(t.Context(), s.source(t), q)
	require.NoError(t, err)
	return c
}

func names(runs []Run) []string {
	var all []string
	for _, r := range runs {
		all = append(all, r.ID)
	}
	return all
}

func assertMass(t *testing.T, want float64, got Value) {
	t.Helper()
	assert.InDelta(t, want, float64(got), 1e-12)
}
