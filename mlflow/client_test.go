package mlflow

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func clientOf(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	return NewClient(u.JoinPath("base"), "", http.DefaultTransport)
}

// Python writes NaN and Infinity as they are, others as strings; R sends numbers as strings.
func TestRunWithOddNumbers(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/base/api/2.0/mlflow/runs/get?run_id=a%26b", r.URL.String())
		_, _ = io.WriteString(w, `{"run":{"info":{"run_uuid":"u","run_name":"say \"NaN\" \\","status":"RUNNING"},"data":{"metrics":[
			{"key":"nan","value":NaN,"timestamp":1,"step":0},{"key":"inf","value":-Infinity},{"key":"text","value":"0.5","timestamp":"7","step":"3"},
			{"key":"plain","value":1e-3},{"key":"none","value":null}],"tags":[{"key":"NaN","value":"Infinity"}]}}}`)
	})
	r, err := c.Run(t.Context(), Caller{}, "a&b")
	require.NoError(t, err)
	assert.Equal(t, "u", r.ID)
	assert.Equal(t, `say "NaN" \`, r.Name)
	assert.True(t, math.IsNaN(r.Metrics["nan"].Value))
	assert.True(t, math.IsInf(r.Metrics["inf"].Value, -1))
	assert.Equal(t, Metric{Key: "text", Value: 0.5, Timestamp: 7, Step: 3}, r.Metrics["text"])
	assert.Equal(t, 0.001, r.Metrics["plain"].Value)
	assert.True(t, math.IsNaN(r.Metrics["none"].Value))
	assert.Equal(t, map[string]string{"NaN": "Infinity"}, r.Tags)
}

func TestErrorsOfTheAPI(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"error_code":"REQUEST_LIMIT_EXCEEDED","message":"slowly"}`)
	})
	err := c.LogBatch(t.Context(), Caller{}, []byte("{}"))
	var e *APIError
	require.ErrorAs(t, err, &e)
	assert.Equal(t, APIError{429, "REQUEST_LIMIT_EXCEEDED", "slowly", 7 * time.Second, ""}, *e)

	c = clientOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	_, err = c.Run(t.Context(), Caller{}, "x")
	assert.ErrorContains(t, err, "not what MLflow says")
	c = clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://evil.example/", http.StatusFound)
	})
	_, err = c.Run(t.Context(), Caller{}, "x")
	require.ErrorAs(t, err, &e, "credentials go nowhere else")
}

// Our own calls go where the caller's went, with the caller's credentials, and these are never shown.
func TestCaller(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/api/2.0/mlflow/runs/update":                                              "/base/api/2.0/mlflow/runs/log-batch",
		"/api/2.0/preview/mlflow/runs/update":                                      "/base/api/2.0/mlflow/runs/log-batch",
		"/static/ajax-api/2.0/mlflow/runs/update":                                  "/base/static/api/2.0/mlflow/runs/log-batch",
		"/static/api/3.0/mlflow/traces":                                            "/base/static/api/2.0/mlflow/runs/log-batch",
		"/static/v1/traces":                                                        "/base/static/api/2.0/mlflow/runs/log-batch",
		"/mlflow/v1.0/subscriptions/s/resourceGroups/r/api/2.0/mlflow/runs/update": "/base/mlflow/v1.0/subscriptions/s/resourceGroups/r/api/2.0/mlflow/runs/log-batch",
	} {
		var got *http.Request
		c := clientOf(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
		in := httptest.NewRequest(http.MethodPost, path, nil)
		in.Header = http.Header{"Authorization": {"Bearer secret"}, "Cookie": {"session=secret"}, "X-Mlflow-Workspace": {"w"}, "X-Databricks-Org-Id": {"7"}, "X-Other": {"x"}}
		caller := CallerOf(in)
		require.NoError(t, c.LogBatch(t.Context(), caller, []byte("{}")))
		assert.Equal(t, want, got.URL.Path)
		assert.Equal(t, "Bearer secret", got.Header.Get("Authorization"))
		assert.Equal(t, "w", got.Header.Get("X-MLFLOW-WORKSPACE"))
		assert.Equal(t, "7", got.Header.Get("X-Databricks-Org-Id"))
		assert.Empty(t, got.Header.Get("Cookie"), "only without Authorization")
		assert.Empty(t, got.Header.Get("X-Other"))
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "caller", caller)
		assert.NotContains(t, log.String()+fmt.Sprintf("%v %+v %#v %s", caller, caller, caller, caller), "secret")

		in.Header.Del("Authorization")
		require.NoError(t, c.LogBatch(t.Context(), CallerOf(in), []byte("{}")))
		assert.Equal(t, "session=secret", got.Header.Get("Cookie"))
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	b, err := Batch("r", []Metric{{"k", 1e-12, 5, 3}}, []Tag{{"t", strings.Repeat("é", maxTag)}})
	require.NoError(t, err)
	var v struct {
		RunID   string `json:"run_id"`
		Metrics []map[string]any
		Tags    []Tag
	}
	require.NoError(t, json.Unmarshal(b, &v))
	assert.Equal(t, "r", v.RunID)
	assert.Equal(t, map[string]any{"key": "k", "value": 1e-12, "timestamp": 5.0, "step": 3.0}, v.Metrics[0])
	assert.Equal(t, strings.Repeat("é", maxTag/2), v.Tags[0].Value, "cut between letters")
}

// What a run was trained for stands among its parameters; an experiment has tags of its own.
func TestParametersAndAnExperimentsTags(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/runs/get") {
			_, _ = io.WriteString(w, `{"run":{"info":{"run_id":"r","experiment_id":"7"},"data":{"params":[{"key":"objective","value":"binary:logistic"}]}}}`)
			return
		}
		assert.Equal(t, "/base/api/2.0/mlflow/experiments/get?experiment_id=7%267", r.URL.String())
		_, _ = io.WriteString(w, `{"experiment":{"experiment_id":"7","tags":[{"key":"emissions.accuracy_metric","value":"f1"}]}}`)
	})
	r, err := c.Run(t.Context(), Caller{}, "r")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"objective": "binary:logistic"}, r.Params)
	assert.Equal(t, "7", r.ExperimentID)
	e, err := c.Experiment(t.Context(), Caller{}, "7&7")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"emissions.accuracy_metric": "f1"}, e.Tags)
}

// Something read for one user must never be shown to another, and no credential may be found in what is kept.
func TestKeysOfCallers(t *testing.T) {
	t.Parallel()
	of := func(path string, header http.Header) string {
		return CallerOf(&http.Request{URL: &url.URL{Path: path}, Header: header}).Key()
	}
	const path = "/api/2.0/mlflow/runs/update"
	a := of(path, http.Header{"Authorization": {"Bearer secret"}})
	assert.Equal(t, a, of(path, http.Header{"Authorization": {"Bearer secret"}, "Accept": {"*/*"}}))
	assert.NotContains(t, a, "secret")
	for _, other := range []string{of(path, http.Header{}), of(path, http.Header{"Authorization": {"Bearer other"}}), of("/azure"+path, http.Header{"Authorization": {"Bearer secret"}}),
		of(path, http.Header{"Authorization": {"Bearer secret"}, "X-Mlflow-Workspace": {"w"}})} {
		assert.NotEqual(t, a, other)
	}
}

// Python's bare NaN and Infinity become strings, and nothing else is touched: neither what is JSON already nor what is in strings.
func FuzzWithoutBareNumbers(f *testing.F) {
	f.Add([]byte(`{"a":NaN,"b":"NaN","c":[-Infinity,1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := withoutBareNumbers(b)
		if json.Valid(b) && string(out) != string(b) {
			t.Fatalf("%q became %q", b, out)
		}
		var answer struct{ Run wireRun }
		if json.Unmarshal(out, &answer) == nil {
			answer.Run.run()
		}
	})
}
