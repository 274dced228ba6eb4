package mlflow

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// paged answers a search with so many things, as many at once as are asked for.
func paged(t *testing.T, name string, total int, seen *[]map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&body))
		*seen = append(*seen, body)
		token, _ := body["page_token"].(string)
		from, _ := strconv.Atoi(token)
		to := min(total, from+int(body["max_results"].(float64)))
		var found []string
		for i := from; i < to; i++ {
			if name == "runs" {
				found = append(found, fmt.Sprintf(`{"info":{"run_id":"%d","user_id":"ada","start_time":"1700000000000","end_time":null,"artifact_uri":"mlflow-artifacts:/1"},"data":{"params":[{"key":"p","value":"v"}]}}`, i))
			} else {
				found = append(found, fmt.Sprintf(`{"experiment_id":"%d","name":"n","last_update_time":1700000000000}`, i))
			}
		}
		next := ""
		if to < total {
			next = fmt.Sprintf(`,"next_page_token":"%d"`, to)
		}
		fmt.Fprintf(w, `{"%s":[%s]%s}`, name, strings.Join(found, ","), next)
	}
}

func TestSearchRuns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		total, limit, want int
		next               string
	}{{0, 0, 0, ""}, {5, 0, 5, ""}, {searchPage, 0, searchPage, ""}, {2*searchPage + 1, 0, 2*searchPage + 1, ""}, {500, 300, 300, "300"}, {500, 500, 500, ""}, {500, 1, 1, "1"}} {
		var seen []map[string]any
		runs, next, err := clientOf(t, paged(t, "runs", c.total, &seen)).SearchRuns(t.Context(), Caller{}, RunQuery{ExperimentIDs: []string{"1", "2"}, Filter: "f", OrderBy: []string{"o"}, Limit: c.limit})
		require.NoError(t, err)
		assert.Len(t, runs, c.want)
		assert.Equal(t, c.next, next)
		for i, r := range runs {
			assert.Equal(t, fmt.Sprint(i), r.ID, "each once, in order")
		}
		assert.Equal(t, []any{"1", "2"}, seen[0]["experiment_ids"])
		assert.Equal(t, "f", seen[0]["filter"])
		assert.Equal(t, []any{"o"}, seen[0]["order_by"])
	}
	var seen []map[string]any
	runs, _, err := clientOf(t, paged(t, "runs", 9, &seen)).SearchRuns(t.Context(), Caller{}, RunQuery{PageToken: "7"})
	require.NoError(t, err)
	require.Len(t, runs, 2)
	assert.Equal(t, "7", runs[0].ID)
	assert.Equal(t, "ada", runs[0].User)
	assert.Equal(t, map[string]string{"p": "v"}, runs[0].Params)
	assert.Equal(t, time.UnixMilli(1700000000000).UTC(), runs[0].Start)
	assert.True(t, runs[0].End.IsZero())
}

// A server whose token does not move on would keep us asking for ever.
func TestSearchEnds(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"runs":[{"info":{"run_id":"a"}}],"experiments":[{"experiment_id":"1"}],"next_page_token":"same"}`)
	})
	runs, _, err := c.SearchRuns(t.Context(), Caller{}, RunQuery{})
	require.NoError(t, err)
	assert.Len(t, runs, 2)
	experiments, _, err := c.SearchExperiments(t.Context(), Caller{}, 100)
	require.NoError(t, err)
	assert.Len(t, experiments, 2)
}

func TestSearchExperiments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		total, limit, want int
		more               bool
	}{{0, 10, 0, false}, {450, 1000, 450, false}, {1001, 1000, 1000, true}, {1000, 1000, 1000, false}} {
		var seen []map[string]any
		found, more, err := clientOf(t, paged(t, "experiments", c.total, &seen)).SearchExperiments(t.Context(), Caller{}, c.limit)
		require.NoError(t, err)
		assert.Len(t, found, c.want)
		assert.Equal(t, c.more, more)
		assert.Equal(t, []any{"last_update_time DESC"}, seen[0]["order_by"])
	}
}

func TestExperimentAndCurve(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/api/2.0/mlflow/experiments/get-by-name":
			assert.Equal(t, "a b&c", r.URL.Query().Get("experiment_name"))
			_, _ = io.WriteString(w, `{"experiment":{"experiment_id":"7","name":"a b&c"}}`)
		case "/base/api/2.0/mlflow/metrics/get-history":
			assert.Equal(t, "emissions/x", r.URL.Query().Get("metric_key"))
			assert.NotEmpty(t, r.URL.Query().Get("max_results"), "else some servers send an empty page")
			_, _ = io.WriteString(w, `{"metrics":[{"key":"emissions/x","value":1.5,"timestamp":"9","step":2}]}`)
		default:
			w.WriteHeader(404)
		}
	})
	e, err := c.ExperimentByName(t.Context(), Caller{}, "a b&c")
	require.NoError(t, err)
	assert.Equal(t, Experiment{ID: "7", Name: "a b&c"}, e)
	_, err = c.Experiment(t.Context(), Caller{}, "8")
	var refused *APIError
	require.ErrorAs(t, err, &refused)
	values, err := c.MetricHistory(t.Context(), Caller{}, "r", "emissions/x")
	require.NoError(t, err)
	assert.Equal(t, []Metric{{Key: "emissions/x", Value: 1.5, Timestamp: 9, Step: 2}}, values)
}

// An artifact goes where the run's are, by the server that the credentials are for, and nowhere else.
func TestPutArtifact(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	c := clientOf(t, func(_ http.ResponseWriter, r *http.Request) { got = r; body, _ = io.ReadAll(r.Body) })
	put := func(uri string) error {
		return c.PutArtifact(t.Context(), Caller{}, Run{ID: "r", ArtifactURI: uri}, "e.html", "text/html", []byte("<p>"))
	}
	require.NoError(t, put("mlflow-artifacts:/1/abc/artifacts"))
	assert.Equal(t, "PUT /base/api/2.0/mlflow-artifacts/artifacts/1/abc/artifacts/e.html", got.Method+" "+got.URL.Path)
	assert.Equal(t, "text/html", got.Header.Get("Content-Type"))
	assert.Equal(t, "<p>", string(body))
	require.NoError(t, put("mlflow-artifacts://"+c.base.Host+"/1"))
	got = nil
	for uri, says := range map[string]string{"s3://bucket/1": "s3://bucket/1", "/tmp/1": "mlflow artifacts log-artifact", "": "does not pass on", "mlflow-artifacts://evil.example/1": "evil.example"} {
		assert.ErrorContains(t, put(uri), says)
	}
	assert.Nil(t, got)
}

func TestCallerInAnotherPlace(t *testing.T) {
	t.Parallel()
	var got *http.Request
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) { got = r; _, _ = io.WriteString(w, "{}") })
	u, err := url.Parse("http://x")
	require.NoError(t, err)
	env := func(name string) string {
		return map[string]string{"MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_WORKSPACE": "mine"}[name]
	}
	first := CallerFromEnvironment(env, u)
	_, _ = c.Run(t.Context(), first.WithWorkspace("other").WithPrefix("/mlflow"), "r")
	assert.Equal(t, "/base/mlflow/api/2.0/mlflow/runs/get", got.URL.Path)
	assert.Equal(t, "mine", got.Header.Get("X-Mlflow-Workspace"), "what the caller said itself")
	assert.Equal(t, "Bearer t", got.Header.Get("Authorization"))
	bare := CallerFromEnvironment(func(string) string { return "" }, u)
	_ = bare.WithWorkspace("w")
	_, _ = c.Run(t.Context(), bare, "r")
	assert.Empty(t, got.Header.Get("X-Mlflow-Workspace"), "a copy changes nothing of the first")
}

func TestTransportFromEnvironment(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, []byte("no certificate"), 0o600))
	get := func(name, value string) func(string) string {
		return func(n string) string { return map[string]string{name: value}[n] }
	}
	_, err := TransportFromEnvironment(get("MLFLOW_TRACKING_SERVER_CERT_PATH", file))
	assert.ErrorContains(t, err, "has no certificate in it")
	_, err = TransportFromEnvironment(get("MLFLOW_TRACKING_SERVER_CERT_PATH", file+"x"))
	assert.ErrorContains(t, err, "MLFLOW_TRACKING_SERVER_CERT_PATH")
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	for name, value := range map[string]string{"": "", "MLFLOW_TRACKING_INSECURE_TLS": "true", "MLFLOW_TRACKING_SERVER_CERT_PATH": file} {
		rt, err := TransportFromEnvironment(get(name, value))
		require.NoError(t, err)
		res, err := (&http.Client{Transport: rt}).Get(server.URL)
		if name == "" {
			require.ErrorContains(t, err, "certificate")
			continue
		}
		require.NoError(t, err, name)
		_ = res.Body.Close()
	}
}
