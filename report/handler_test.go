package report

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The page must never show more than whoever asks may see: every call has the caller's credentials, and no others.
func TestTheCallersOwnCredentials(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 1, 0.8))
	for _, target := range []string{"/emissions/", "/emissions/?experiment=1", "/emissions/runs.csv?experiment=1", "/emissions/api/experiments/1/runs", "/emissions/api/runs/a/curve"} {
		require.Equal(t, 200, s.get(t, Config{}, target, "Authorization", "Bearer hers", "X-Mlflow-Workspace", "team", "X-Other", "x").Code, target)
		requests, _ := s.asked()
		require.NotEmpty(t, requests)
		for _, r := range requests {
			assert.Equal(t, "Bearer hers", r.Header.Get("Authorization"), r.URL.Path)
			assert.Equal(t, "team", r.Header.Get("X-Mlflow-Workspace"), r.URL.Path)
			assert.Empty(t, r.Header.Get("X-Other"))
		}
		require.Equal(t, 200, s.get(t, Config{}, target).Code)
		requests, _ = s.asked()
		require.NotEmpty(t, requests)
		for _, r := range requests {
			assert.NotContains(t, r.Header, "Authorization")
			assert.NotContains(t, r.Header, "X-Mlflow-Workspace", "never invented")
		}
	}
}

// A browser cannot send the header of a workspace when it opens a page, so the address names it, and so do all links.
func TestWorkspaceInTheAddress(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 1, 0.8))
	w := s.get(t, Config{}, "/emissions/?workspace=team+b&experiment=1")
	requests, _ := s.asked()
	require.NotEmpty(t, requests)
	for _, r := range requests {
		assert.Equal(t, "team b", r.Header.Get("X-Mlflow-Workspace"), r.URL.Path)
	}
	assert.Contains(t, w.Body.String(), `href="../#/experiments/1/runs/a?workspace=team&#43;b"`)
	assert.Contains(t, w.Body.String(), `<input type="hidden" name="workspace" value="team b">`)
	assert.Contains(t, s.get(t, Config{}, "/emissions/?workspace=w").Body.String(), `href="?experiment=1&amp;workspace=w"`)
}

// Below MLflow's --static-prefix lie its API and its pages; ours lie where they always do.
func TestStaticPrefix(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 1, 0.8))
	w := s.get(t, Config{Prefix: "/mlflow"}, "/emissions/?experiment=1")
	require.Equal(t, 200, w.Code)
	requests, _ := s.asked()
	require.NotEmpty(t, requests)
	for _, r := range requests {
		assert.True(t, strings.HasPrefix(r.URL.Path, "/mlflow/api/2.0/"), r.URL.Path)
	}
	assert.Contains(t, w.Body.String(), `href="../mlflow/#/experiments/1/runs/a"`)
}

// What MLflow refuses is said in its words, with its status: a browser asks for a password only on 401 with a challenge.
func TestMLflowsRefusals(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		status int
		body   string
		want   int
		says   string
	}{
		{400, `{"error_code":"INVALID_PARAMETER_VALUE","message":"Invalid clause(s) <b>"}`, 400, "Invalid clause(s) &lt;b&gt;"},
		{401, `You are not authenticated.`, 401, "MLflow answered 401 Unauthorized."},
		{403, `{"error_code":"PERMISSION_DENIED","message":"Permission denied"}`, 403, "Permission denied"},
		{404, `{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"No Experiment with id=1 exists"}`, 404, "No Experiment with id=1 exists"},
		{302, ``, 502, "redirect"},
		{200, `<html>`, 502, "cannot be reached"},
		{503, `{}`, 503, "MLflow answered 503 Service Unavailable."},
	} {
		s.refuses(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="mlflow"`)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		for _, target := range []string{"/emissions/?experiment=1&filter=x", "/emissions/"} {
			w := s.get(t, Config{}, target)
			assert.Equal(t, c.want, w.Code, c.status)
			assert.Contains(t, w.Body.String(), c.says)
			assert.Contains(t, w.Body.String(), `role="alert"`)
			if c.status >= 400 {
				assert.Equal(t, `Basic realm="mlflow"`, w.Header().Get("WWW-Authenticate"))
			}
		}
		w := s.get(t, Config{}, "/emissions/api/experiments/1/runs")
		assert.Equal(t, c.want, w.Code)
		var answer struct {
			Code string `json:"error_code"`
			Said string `json:"message"`
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		assert.NotEmpty(t, answer.Said)
		assert.NotEmpty(t, answer.Code)
	}
	s.Close()
	w := s.get(t, Config{}, "/emissions/?experiment=1")
	assert.Equal(t, 502, w.Code)
	assert.Contains(t, w.Body.String(), "The MLflow server cannot be reached")
}

// A filter that MLflow does not understand must not take the form away in which to mend it.
func TestABadFilterLeavesTheForm(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.refuses(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "runs/search") {
			_, _ = io.WriteString(w, `{"experiments":[{"experiment_id":"1","name":"pictures"}],"experiment":{"experiment_id":"1","name":"pictures"}}`)
			return
		}
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"message":"Invalid filter"}`)
	})
	w := s.get(t, Config{}, "/emissions/?experiment=1&filter="+url.QueryEscape(`bad "filter"`))
	assert.Equal(t, 400, w.Code)
	for _, part := range []string{`value="bad &#34;filter&#34;"`, `aria-invalid="true"`, "MLflow does not understand this filter", "Invalid filter", `value="1" checked`} {
		assert.Contains(t, w.Body.String(), part)
	}
}

func TestJSONOfAnExperiment(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 2, 0.8), wireRun("b", nil, map[string]string{tagStatus: "unmeasured: elsewhere"}), measuredRun("c", 1, 0.9))
	w := s.get(t, Config{}, "/emissions/api/experiments/1/runs?max_results=2&sort=emissions_g")
	require.Equal(t, 200, w.Code)
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var d map[string]any
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	runs := d["runs"].([]any)
	require.Len(t, runs, 2)
	a, b := runs[0].(map[string]any), runs[1].(map[string]any)
	assert.Equal(t, map[string]any{
		"run_id": "a", "run_name": "name of a", "experiment_id": "1", "experiment_name": "pictures", "user": "ada", "status": "FINISHED", "start_time": "2023-11-14T22:13:20Z", "end_time": "2023-11-14T22:14:20Z",
		"inside_parent": false, "metering": "measured", "accuracy_percent": 80.0, "accuracy_key": "test_accuracy", "size": 25600000.0, "emissions_g": 2.0, "low_g": 1.6, "high_g": 2.6,
		"training_g": nil, "inference_g": nil, "inference_low_g": nil, "inference_high_g": nil, "energy_kwh": 2.0 / 150, "cpu_energy_kwh": 0.01, "gpu_energy_kwh": nil, "ram_energy_kwh": 2.0 / 600, "duration_s": 60.0, "accuracy_per_emission": 40.0,
		"emission_per_10_inferences": 0.002, "methods": map[string]any{"cpu": "rapl", "ram": "model:resident"}, "location": "BEL", "intensity_g_per_kwh": 150.0, "pue": 1.0, "host": "here", "pareto": true,
		"url": "http://example.com/#/experiments/1/runs/a",
	}, a)
	assert.Equal(t, "unmeasured", b["metering"])
	assert.Equal(t, "elsewhere", b["why"])
	assert.Nil(t, b["emissions_g"], "no zero in its place")
	w = s.get(t, Config{}, "/emissions/api/experiments/1/runs?page_token="+d["next_page_token"].(string))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	assert.Equal(t, "c", d["runs"].([]any)[0].(map[string]any)["run_id"])
	for _, bad := range []string{"0", "-1", "many"} {
		assert.Equal(t, 400, s.get(t, Config{}, "/emissions/api/experiments/1/runs?max_results="+bad).Code)
	}
	w = s.get(t, Config{}, "/emissions/api/runs/a/curve")
	assert.JSONEq(t, `[[1000,0.5],[2000,0.75]]`, w.Body.String())
}

// The address is the page's whole state: what it says, the page's own links say again.
func TestAddress(t *testing.T) {
	t.Parallel()
	const address = "?col=accuracy&col=location&experiment=1&experiment=2&filter=metrics.a+%3E+1&run=x&run=y&size=param%3An&sort=-emissions_g&workspace=w"
	q, err := url.ParseQuery(address[1:])
	require.NoError(t, err)
	v := viewOf(q)
	assert.Equal(t, address, v.address())
	assert.Equal(t, "emissions_g", v.sorted(columns[5]).Sort, "the other way round")
	assert.Equal(t, "-accuracy", v.sorted(columns[4]).Sort)
	assert.Equal(t, "name", v.sorted(columns[0]).Sort)
}

func TestStaticFiles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	now := s.get(t, Config{}, "/emissions/"+staticURL("page.js"))
	require.Equal(t, 200, now.Code)
	assert.Contains(t, now.Header().Get("Cache-Control"), "immutable")
	assert.Contains(t, now.Header().Get("Content-Type"), "javascript")
	etag := now.Header().Get("ETag")
	require.NotEmpty(t, etag)
	other := s.get(t, Config{}, "/emissions/static/page.js?v=old")
	assert.Equal(t, "no-cache", other.Header().Get("Cache-Control"), "of another version: ask again")
	assert.Equal(t, http.StatusNotModified, s.get(t, Config{}, "/emissions/static/page.js", "If-None-Match", etag).Code)
	for _, target := range []string{"/emissions/static/", "/emissions/static/..%2fpage.html", "/emissions/static/nothing.js", "/emissions/nothing", "/emissions/../api/2.0/mlflow/runs/get"} {
		assert.Equal(t, 404, s.get(t, Config{}, target).Code, target)
	}
	zipped := s.get(t, Config{}, "/emissions/"+staticURL("echarts.js"), "Accept-Encoding", "gzip")
	assert.Equal(t, "gzip", zipped.Header().Get("Content-Encoding"))
	assert.Less(t, zipped.Body.Len(), 500_000)
	r, err := gzip.NewReader(zipped.Body)
	require.NoError(t, err)
	plain, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, statics["echarts.js"].content, plain)
	requests, _ := s.asked()
	assert.Empty(t, requests, "nothing of it is MLflow's")
}

// The page runs and loads nothing but its own files, whatever slips into it, and no other page may frame it.
func TestContentSecurityPolicy(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 1, 0.8))
	for _, target := range []string{"/emissions/", "/emissions/?experiment=1", "/emissions/api/experiments/1/runs", "/emissions/static/page.js"} {
		h := s.get(t, Config{}, target).Header()
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"} {
			assert.Contains(t, policy, part, target)
		}
		assert.NotContains(t, policy, "unsafe")
		assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		if target != "/emissions/static/page.js" {
			assert.Equal(t, "no-store", h.Get("Cache-Control"), "it is one caller's")
		}
	}
	page := s.get(t, Config{}, "/emissions/?experiment=1").Body.String()
	assert.NotRegexp(t, `(?i)<style|style="|\son[a-z]+="|javascript:`, page)
}

// A fault of the page's own is one answer and one line of the log; the proxy goes on.
func TestAFaultOfOurOwn(t *testing.T) {
	t.Parallel()
	s := newServer(t, measuredRun("a", 1, 0.8))
	var log strings.Builder
	h := Handler(Config{Client: s.client(t), Logger: slog.New(slog.NewTextHandler(&log, nil)), Accuracy: testAccuracy})
	for _, broken := range []http.Handler{Handler(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}), h} { // the first has no client
		w := httptest.NewRecorder()
		broken.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/emissions/api/runs/a/curve", nil))
		if broken != h {
			assert.Equal(t, http.StatusInternalServerError, w.Code)
			assert.Contains(t, w.Body.String(), "INTERNAL_SERVER_ERROR")
			assert.Equal(t, 1, strings.Count(log.String(), "\n"))
			continue
		}
		assert.Equal(t, 200, w.Code)
	}
}

func TestOnlyReading(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	h := Handler(Config{Client: s.client(t)})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		r, err := http.NewRequest(method, "/emissions/", nil)
		require.NoError(t, err)
		w := &recorder{header: http.Header{}}
		h.ServeHTTP(w, r)
		assert.Equal(t, http.StatusMethodNotAllowed, w.code, method)
	}
}

type recorder struct {
	header http.Header
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(code int)        { r.code = code }

// BenchmarkPage is all that our side takes for a page of a thousand runs; MLflow's own time comes on top.
func BenchmarkPage(b *testing.B) {
	s := newServer(b)
	for i := range 1000 {
		s.runs = append(s.runs, measuredRun(fmt.Sprint(i), float64(i+1), 0.5+float64(i%400)/1000))
	}
	for b.Loop() {
		if w := s.get(b, Config{}, "/emissions/?experiment=1&sort=-emissions_g"); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
