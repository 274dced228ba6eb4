package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
)

// fakeMLflow is an upstream that keeps runs as MLflow does, as far as we talk to it. Faults are injected by hook.
type fakeMLflow struct {
	mu     sync.Mutex
	runs   map[string]*fakeRun
	calls  []string // "METHOD path"
	hook   func(w http.ResponseWriter, r *http.Request, name string, body []byte) (handled bool)
	server *httptest.Server
}

type fakeRun struct {
	status   string
	metrics  map[string]float64
	tags     map[string]string
	batches  [][]byte
	statuses []string // the run's status at each log-batch
}

func newFakeMLflow(t testing.TB) *fakeMLflow {
	f := &fakeMLflow{runs: map[string]*fakeRun{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fakeMLflow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	f.mu.Lock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r, name, body) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var in struct {
		RunID   string           `json:"run_id"`
		Name    string           `json:"run_name"`
		Status  json.RawMessage  `json:"status"`
		Key     string           `json:"key"`
		Value   any              `json:"value"`
		Tags    []map[string]any `json:"tags"`
		Metrics []map[string]any `json:"metrics"`
	}
	_ = json.Unmarshal(body, &in)
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	if name == "create" {
		id := fmt.Sprintf("run%d", len(f.runs)+1)
		run := &fakeRun{status: "RUNNING", metrics: map[string]float64{}, tags: map[string]string{}}
		f.runs[id] = run
		for _, t := range in.Tags {
			run.tags[t["key"].(string)] = t["value"].(string)
		}
		answer(map[string]any{"run": map[string]any{"info": map[string]any{"run_id": id, "status": "RUNNING"}, "data": map[string]any{"tags": in.Tags}}})
		return
	}
	id := in.RunID
	if id == "" {
		id = r.URL.Query().Get("run_id")
	}
	run := f.runs[id]
	if run == nil {
		w.WriteHeader(http.StatusNotFound)
		answer(map[string]any{"error_code": "RESOURCE_DOES_NOT_EXIST"})
		return
	}
	switch name {
	case "update":
		switch strings.Trim(string(in.Status), `"`) {
		case "FINISHED", "3", "3.0":
			run.status = "FINISHED"
		case "FAILED", "KILLED", "RUNNING":
			run.status = strings.Trim(string(in.Status), `"`)
		}
		answer(map[string]any{"run_info": map[string]any{"run_id": id, "status": run.status}})
	case "log-batch":
		run.batches = append(run.batches, body)
		run.statuses = append(run.statuses, run.status)
		for _, m := range in.Metrics {
			run.metrics[m["key"].(string)] = m["value"].(float64)
		}
		for _, t := range in.Tags {
			run.tags[t["key"].(string)] = t["value"].(string)
		}
		answer(struct{}{})
	case "log-metric":
		run.metrics[in.Key] = in.Value.(float64)
		answer(struct{}{})
	case "set-tag":
		run.tags[in.Key] = in.Value.(string)
		answer(struct{}{})
	case "get":
		var metrics, tags []map[string]any
		for k, v := range run.metrics {
			metrics = append(metrics, map[string]any{"key": k, "value": v, "timestamp": 1, "step": 0})
		}
		for k, v := range run.tags {
			tags = append(tags, map[string]any{"key": k, "value": v})
		}
		answer(map[string]any{"run": map[string]any{"info": map[string]any{"run_id": id, "status": run.status}, "data": map[string]any{"metrics": metrics, "tags": tags}}})
	default:
		answer(struct{}{})
	}
}

// of returns a copy of what the server has of a run.
func (f *fakeMLflow) of(id string) fakeRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.runs[id]
	if r == nil {
		return fakeRun{}
	}
	c := fakeRun{status: r.status, metrics: map[string]float64{}, tags: map[string]string{}, batches: append([][]byte(nil), r.batches...), statuses: append([]string(nil), r.statuses...)}
	for k, v := range r.metrics {
		c.metrics[k] = v
	}
	for k, v := range r.tags {
		c.tags[k] = v
	}
	return c
}

// bench is a proxy in front of a fake MLflow. The client is this very process, so that every run is this test's.
type bench struct {
	t      testing.TB
	mlflow *fakeMLflow
	proxy  *Proxy
	url    string
	meter  *meter.Meter
}

func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, mlflow: newFakeMLflow(t)}
	m := meter.New(meter.Config{Logger: slog.New(slog.DiscardHandler)})
	b.meter = m
	forced := 400.0
	supply, err := carbon.NewSupply(carbon.World(), &forced, nil)
	require.NoError(t, err)
	upstream, err := url.Parse(b.mlflow.server.URL)
	require.NoError(t, err)
	// Scope machine: a test's client is the proxy's own process, which is never a run's.
	cfg := Config{Upstream: upstream, Meter: m, Supply: supply, Scope: meter.ScopeMachine, LocalClients: LocalAddresses(),
		LateWindow: time.Hour, Host: "here", Version: "test", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	b.proxy, err = New(cfg, prometheus.NewRegistry())
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(nil)
	server.Config = b.proxy.Server()
	server.Start()
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// post sends a call to the proxy, as a client does.
func (b *bench) post(name string, body string) (int, string) {
	b.t.Helper()
	return b.send("/api/2.0/mlflow/runs/"+name, body, nil)
}

func (b *bench) send(path, body string, header http.Header) (int, string) {
	req, err := http.NewRequest(http.MethodPost, b.url+path, strings.NewReader(body))
	require.NoError(b.t, err)
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	require.NoError(b.t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	return res.StatusCode, string(answer)
}

// create makes a run and lets the machine use a little energy.
func (b *bench) create(tags string) string {
	b.t.Helper()
	code, answer := b.post("create", `{"experiment_id":"0","tags":[`+tags+`]}`)
	require.Equal(b.t, 200, code)
	var a struct {
		Run struct {
			Info struct {
				RunID string `json:"run_id"`
			} `json:"info"`
		} `json:"run"`
	}
	require.NoError(b.t, json.Unmarshal([]byte(answer), &a))
	b.work()
	return a.Run.Info.RunID
}

// work keeps a CPU busy until the machine has used some energy.
func (b *bench) work() {
	before := b.meter.Totals().Sensors.Total()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		for end := time.Now().Add(15 * time.Millisecond); time.Now().Before(end); {
		}
		b.meter.Sample()
		if b.meter.Totals().Sensors.Total() > before {
			return
		}
	}
	b.t.Fatal("the machine used no energy")
}

// open is the number of runs that are metered now.
func (b *bench) open() int {
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	return len(b.proxy.runs)
}

func TestFiguresAreInTheRunBeforeItEnds(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"FINISHED", "FAILED", "KILLED"} {
		b := newBench(t, nil)
		id := b.create("")
		b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
		code, _ := b.post("update", `{"run_id":"`+id+`","status":"`+status+`","end_time":1}`)
		require.Equal(t, 200, code)
		r := b.mlflow.of(id)
		assert.Equal(t, status, r.status)
		assert.Equal(t, []string{"RUNNING"}, r.statuses, "written once, before the update")
		assert.Greater(t, r.metrics[metricEmissions], 0.0)
		assert.InEpsilon(t, 50/r.metrics[metricEmissions], r.metrics[metricAccuracy], 1e-9)
		assert.InEpsilon(t, r.metrics[metricEnergy]*400, r.metrics[metricEmissions], 1e-9)
		assert.Less(t, r.metrics[metricLow], r.metrics[metricEmissions])
		assert.Greater(t, r.metrics[metricHigh], r.metrics[metricEmissions])
		assert.NotContains(t, r.metrics, metricInferences)
		assert.NotContains(t, r.metrics, metricTraining)
		assert.Equal(t, "measured", r.tags[tagStatus])
		assert.Equal(t, "test_accuracy", r.tags[tagAccuracyKey])
		assert.Equal(t, "400", r.tags[tagIntensity])
		assert.Equal(t, "here", r.tags[tagHost])
		assert.Zero(t, b.open())
	}
}

func TestTheServersAnswerDecides(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","run_name":"renamed"}`)
	b.post("update", `{"run_id":"`+id+`","status":"finished"}`) // the server takes it and goes on
	assert.Equal(t, 1, b.open())
	assert.Empty(t, b.mlflow.of(id).batches)

	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name == "update" {
			w.WriteHeader(http.StatusForbidden)
		}
		return name == "update"
	}
	code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Equal(t, 403, code)
	assert.Equal(t, 1, b.open(), "what the server refused has not ended the run")
	so_far := b.mlflow.of(id).metrics[metricEmissions]
	b.mlflow.hook = nil
	b.work()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Greater(t, b.mlflow.of(id).metrics[metricEmissions], so_far, "it went on to be metered")
	assert.Zero(t, b.open())
}

func TestAnUnrecognisedEndIsCompletedFromTheAnswer(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	code, _ := b.post("update", `{"run_id":"`+id+`","status":3.0}`)
	require.Equal(t, 200, code)
	r := b.mlflow.of(id)
	assert.Equal(t, []string{"FINISHED"}, r.statuses)
	assert.Greater(t, r.metrics[metricEmissions], 0.0)
	assert.Zero(t, b.open())
}

func TestRepeatedAndConcurrentUpdatesWriteOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`) })
	}
	wg.Wait()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Len(t, b.mlflow.of(id).batches, 1)
	assert.Zero(t, b.open())
}

func TestAResumedRunGoesOnFromWhatItHad(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	first := b.mlflow.of(id).metrics
	b.post("update", `{"run_id":"`+id+`","status":"RUNNING","end_time":1}`)
	require.Equal(t, 1, b.open())
	b.work()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	second := b.mlflow.of(id)
	for _, key := range []string{metricEmissions, metricEnergy, metricDuration, metricLow, metricHigh} {
		assert.Greater(t, second.metrics[key], first[key], key)
	}
	assert.InEpsilon(t, second.metrics[metricEnergy]*400, second.metrics[metricEmissions], 1e-9)
	assert.NotContains(t, second.tags, tagClientMetrics, "what we wrote ourselves is not the client's")
}

func TestADeletedRunIsDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("delete", `{"run_id":"`+id+`"}`)
	assert.Zero(t, b.open())
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Empty(t, b.mlflow.of(id).batches)
	b.mlflow.mu.Lock()
	b.mlflow.runs[id].status = "RUNNING"
	b.mlflow.mu.Unlock()
	b.post("restore", `{"run_id":"`+id+`"}`)
	assert.Equal(t, 1, b.open(), "a restored run that runs is metered again")
}

func TestSkip(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, value := range []string{"true", "True"} { // Python's client writes True
		b.create(`{"key":"emissions.skip","value":"` + value + `"}`)
		assert.Zero(t, b.open())
	}
	id := b.create("")
	b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.skip","value":"true"}`)
	assert.Zero(t, b.open())
}

func TestAClientsOwnMetricIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-metric", `{"run_id":"`+id+`","key":"emissions_g","value":42}`)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Equal(t, 42.0, r.metrics[metricEmissions])
	assert.Equal(t, metricEmissions, r.tags[tagClientMetrics])
	assert.Greater(t, r.metrics[metricEnergy], 0.0)
}

func TestARemoteClientIsNotMeasured(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LocalClients = []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")} })
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Empty(t, r.metrics)
	assert.Contains(t, r.tags[tagStatus], "unmeasured: the client 127.0.0.1 is on another machine")
}

func TestInAPodTheMachineIsNotTheRuns(t *testing.T) {
	t.Parallel()
	// The client is the proxy's own process, which is never found to be a run's.
	b := newBench(t, func(c *Config) { c.Scope, c.InPod = meter.ScopeProcess, true })
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Empty(t, r.metrics)
	assert.Contains(t, r.tags[tagStatus], "shareProcessNamespace: true")
}

func TestWhatAnotherProxyMetersIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.send("/api/2.0/mlflow/runs/create", `{}`, http.Header{meteredHeader: {"there"}})
	assert.Zero(t, b.open())
}

func TestEvaluationIsTheInferencePhase(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[{"key":"mlflow.data.context","value":"train"}],"dataset":{}}]}`)
	b.work()
	b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[],"dataset":{}}]}`)
	b.work()
	b.post("log-batch", `{"run_id":"`+id+`","metrics":[{"key":"val_example_count","value":30.0,"timestamp":1,"step":0},{"key":"accuracy_score","value":0.9,"timestamp":1,"step":0}]}`)
	b.work()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Greater(t, r.metrics[metricInference], 0.0)
	assert.InEpsilon(t, r.metrics[metricEmissions], r.metrics[metricTraining]+r.metrics[metricInference], 1e-9)
	assert.InEpsilon(t, 10*r.metrics[metricInference]/30, r.metrics[metricInferences], 1e-9)
	assert.InEpsilon(t, 90/r.metrics[metricTraining], r.metrics[metricAccuracy], 1e-9)
	assert.Equal(t, "30", r.tags[tagInferences])
	assert.Equal(t, sourceEvaluate, r.tags[tagInferenceSource])
}

func TestADatasetWithoutACountIsTraining(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[],"dataset":{}}]}`)
	b.work()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.NotContains(t, b.mlflow.of(id).metrics, metricInference)
}

func TestPhaseByTag(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"inference"}`)
	b.work()
	b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"training"}`)
	b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.inferences","value":"200"}`)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.InEpsilon(t, 10*r.metrics[metricInference]/200, r.metrics[metricInferences], 1e-9)
	assert.Equal(t, sourceTag, r.tags[tagInferenceSource])
}

func TestALateAccuracyCompletesTheRatio(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.NotContains(t, b.mlflow.of(id).metrics, metricAccuracy)
	b.post("log-metric", `{"run_id":"`+id+`","key":"accuracy_on_test_data","value":0.5}`)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 10*time.Second, 10*time.Millisecond)
	r := b.mlflow.of(id)
	assert.InEpsilon(t, 50/r.metrics[metricEmissions], r.metrics[metricAccuracy], 1e-9)
}

func TestFiguresThatCouldNotBeWrittenAreTriedAgainWithTheSameBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	var mu sync.Mutex
	var seen [][]byte
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, body []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if name != "log-batch" {
			return false
		}
		if seen = append(seen, body); len(seen) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	code, _ := b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Equal(t, 200, code, "the client's update is not affected")
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricEmissions] > 0 }, 20*time.Second, 20*time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	assert.True(t, bytes.Equal(seen[0], seen[1]))
}

func TestTheLiveCurve(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LogInterval = 50 * time.Millisecond })
	go func() { _ = b.proxy.Run(t.Context(), nil) }()
	id := b.create("")
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricEmissions] > 0 }, 10*time.Second, 10*time.Millisecond)
	assert.Equal(t, "RUNNING", b.mlflow.of(id).status)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.NotContains(t, b.mlflow.of(id).tags, tagClientMetrics)
}

func TestDrainWritesWhatRunningRunsHaveUsed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.proxy.Drain(t.Context())
	r := b.mlflow.of(id)
	assert.Greater(t, r.metrics[metricEmissions], 0.0)
	assert.Contains(t, r.tags[tagStatus], "partial")
	assert.Equal(t, "RUNNING", r.status, "the run's status is the client's business")
}

func TestCredentialsOfTheCallerAreUsed(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	var mu sync.Mutex
	var seen []string
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, name+" "+r.Header.Get("Authorization"))
		return false
	}
	b.send("/prefix/api/2.0/preview/mlflow/runs/update", `{"run_id":"`+id+`","status":"FINISHED"}`, http.Header{"Authorization": {"Bearer secret"}})
	assert.Equal(t, []string{"get Bearer secret", "log-batch Bearer secret", "update Bearer secret"}, seen)
	assert.Contains(t, b.mlflow.calls, "POST /prefix/api/2.0/mlflow/runs/log-batch")
}

func TestAFaultInMeteringIsNotTheClients(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Meter = nil }) // whatever touches it panics
	code, answer := b.post("create", `{}`)
	assert.Equal(t, 200, code)
	assert.Contains(t, answer, "run1")
}

// What we wrote with an update that the server then refused is not the user's word when the client tries again.
func TestACountOfOursIsNotTheUsers(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	evaluate := func(count string) {
		b.post("log-inputs", `{"run_id":"`+id+`","datasets":[{"tags":[],"dataset":{}}]}`)
		b.work()
		b.post("log-metric", `{"run_id":"`+id+`","key":"example_count","value":`+count+`}`)
	}
	evaluate("30")
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name == "update" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return name == "update"
	}
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Equal(t, "30", b.mlflow.of(id).tags[tagInferences])
	b.mlflow.hook = nil
	evaluate("20")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Equal(t, "50", r.tags[tagInferences])
	assert.Equal(t, sourceEvaluate, r.tags[tagInferenceSource])
	assert.InEpsilon(t, 10*r.metrics[metricInference]/50, r.metrics[metricInferences], 1e-9)
}

// What was not measured of a run's earlier sessions is not measured by a later one.
func TestAResumedRunStaysPartial(t *testing.T) {
	t.Parallel()
	elsewhere := func(c *Config) { c.LocalClients = []netip.Prefix{netip.MustParsePrefix("10.9.9.9/32")} }
	for _, c := range []struct {
		name          string
		first, second func(*Config)
		drain         bool
		want          string
	}{
		{"stopped in the middle", nil, nil, true, "partial: before it was resumed: the proxy was stopped while the run went on"},
		{"began elsewhere", elsewhere, nil, false, "partial: before it was resumed: unmeasured: the client 127.0.0.1 is on another machine; run a proxy there, or add its address to --local-clients if it is this one"},
		{"went on elsewhere", nil, elsewhere, false, "partial: since it was resumed: unmeasured: the client 127.0.0.1 is on another machine; run a proxy there, or add its address to --local-clients if it is this one"},
		{"measured", nil, nil, false, "measured"},
	} {
		b := newBench(t, c.first)
		id := b.create("")
		if c.drain {
			b.proxy.Drain(t.Context())
		} else {
			b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		}
		again := newBench(t, func(to *Config) {
			to.Upstream, _ = url.Parse(b.mlflow.server.URL)
			if c.second != nil {
				c.second(to)
			}
		})
		for range 2 {
			again.post("update", `{"run_id":"`+id+`","status":"RUNNING","end_time":1}`)
			again.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
			assert.Equal(t, c.want, b.mlflow.of(id).tags[tagStatus], c.name)
		}
	}
}

// A client's own emissions_g is no measure of ours: what the run emitted before it was resumed follows from its energy.
func TestAResumedRunDoesNotCountTheClientsMetric(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-metric", `{"run_id":"`+id+`","key":"emissions_g","value":42}`)
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	for _, status := range []string{"FINISHED", "RUNNING", "FINISHED"} {
		b.work()
		b.post("update", `{"run_id":"`+id+`","status":"`+status+`","end_time":1}`)
	}
	r := b.mlflow.of(id)
	assert.Equal(t, 42.0, r.metrics[metricEmissions])
	assert.InEpsilon(t, 50/(r.metrics[metricEnergy]*400), r.metrics[metricAccuracy], 1e-9)
}

// A ratio that could not be written is tried again with the next metric.
func TestALateAccuracyOutlivesAFailure(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	failed := make(chan struct{})
	var once sync.Once
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) (handled bool) {
		if name == "log-batch" {
			once.Do(func() {
				w.WriteHeader(http.StatusServiceUnavailable)
				close(failed)
				handled = true
			})
		}
		return handled
	}
	b.mlflow.mu.Unlock()
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	<-failed
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_loss","value":0.5}`)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 10*time.Second, 10*time.Millisecond)
}

// A server too slow to be read before the update is passed on is read after it: the accuracy was there all along.
func TestAccuracyOfASlowServer(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	var once sync.Once
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(_ http.ResponseWriter, r *http.Request, name string, _ []byte) bool {
		if name == "get" {
			once.Do(func() { <-r.Context().Done() })
		}
		return false
	}
	b.mlflow.mu.Unlock()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 10*time.Second, 10*time.Millisecond)
}

// Only runs that are metered are sessions.
func TestUnmeasuredRunsAreNoSessions(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	b := newBench(t, func(c *Config) { c.LocalClients = nil })
	require.NoError(t, reg.Register(b.proxy.metrics))
	b.create("")
	found, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range found {
		if f.GetName() == "emissions_running_sessions" {
			assert.Zero(t, f.GetMetric()[0].GetGauge().GetValue())
			return
		}
	}
	t.Fatal("no such metric")
}

// After a crash only the curve is there. It is ours and not the client's, and the run goes on from where it ends.
func TestARunIsResumedAfterACrash(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LogInterval = 50 * time.Millisecond })
	live, crash := context.WithCancel(t.Context())
	go func() { _ = b.proxy.Run(live, nil) }()
	id := b.create("")
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricEmissions] > 0 }, 10*time.Second, 10*time.Millisecond)
	crash()
	again := newBench(t, func(c *Config) { c.Upstream, _ = url.Parse(b.mlflow.server.URL) })
	b.mlflow.mu.Lock()
	var once sync.Once
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) (handled bool) {
		if name == "get" {
			once.Do(func() {
				handled = true
				_, _ = w.Write([]byte(`{"run":{"info":{"run_id":"` + id + `","status":"RUNNING"},"data":{"metrics":[{"key":"emissions_g","value":3,"step":500}],"tags":[{"key":"emissions.version","value":"` +
					b.mlflow.of(id).tags[tagVersion] + `"}]}}}`))
			})
		}
		return handled
	}
	b.mlflow.runs[id].metrics[metricEmissions] = 3
	b.mlflow.mu.Unlock()
	again.post("update", `{"run_id":"`+id+`","status":"RUNNING","end_time":1}`)
	again.work()
	again.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.NotContains(t, r.tags, tagClientMetrics)
	assert.Greater(t, r.metrics[metricEmissions], 3.0)
	assert.Equal(t, "partial: before it was resumed: the proxy ended while the run went on", r.tags[tagStatus])
	var last struct{ Metrics []struct{ Step int } }
	require.NoError(t, json.Unmarshal(r.batches[len(r.batches)-1], &last))
	assert.GreaterOrEqual(t, last.Metrics[0].Step, 500, "or MLflow would go on to show the curve's last value")
}

// A server that takes nothing for some minutes, or a token that expires meanwhile, leaves an old value of ours in the
// run: it is not the client's own.
func TestTheLiveCurveAfterAnOutage(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LogInterval = 20 * time.Millisecond })
	var refused, first atomic.Int32
	b.mlflow.hook = func(w http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name != "log-batch" || first.Add(1) == 1 {
			return false
		}
		refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	id := b.create("")
	live, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.proxy.Run(live, nil) }()
	require.Eventually(t, func() bool { return refused.Load() > 5 }, 10*time.Second, 10*time.Millisecond)
	stop()
	<-ended
	b.proxy.writers.Wait()
	b.mlflow.mu.Lock()
	b.mlflow.hook = nil
	b.mlflow.mu.Unlock()
	old := b.mlflow.of(id).metrics[metricEmissions]
	b.work()
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.NotContains(t, r.tags, tagClientMetrics)
	assert.Greater(t, r.metrics[metricEmissions], old)
}

// Where nothing can be read, as under a --procfs that is not there, nothing is known: no zero stands in its place.
func TestWhatWasNeverReadIsNotZero(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) {
		c.Meter = meter.New(meter.Config{Logger: slog.New(slog.DiscardHandler), Procfs: t.TempDir(), Sysfs: t.TempDir()})
		c.LogInterval = 10 * time.Millisecond
	})
	id := b.create("")
	for range 3 {
		for _, r := range b.proxy.due(time.Now().Add(time.Minute)) {
			b.proxy.logLive(t.Context(), r)
		}
	}
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	r := b.mlflow.of(id)
	assert.Empty(t, r.metrics)
	assert.True(t, strings.HasPrefix(r.tags[tagStatus], "unmeasured: no RAPL under "), r.tags[tagStatus])
}

// A run that goes on, is deleted and then restored is metered again; what it used before is forgotten, and it says so.
func TestARunIsDeletedAndRestoredWhileItGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("delete", `{"run_id":"`+id+`"}`)
	require.Zero(t, b.open())
	b.post("restore", `{"run_id":"`+id+`"}`)
	require.Equal(t, 1, b.open())
	b.work()
	b.finish(id)
	r := b.mlflow.of(id)
	assert.Positive(t, r.metrics[metricEmissions])
	assert.Equal(t, "partial: before it was resumed: it was deleted while it went on", r.tags[tagStatus])
}
