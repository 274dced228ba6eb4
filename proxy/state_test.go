package proxy

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
)

// again is another proxy in front of the same server, which goes on with what this one keeps: after a stop, or as after
// SIGKILL with what was kept last.
func (b *bench) again(store *Store, change func(*Config)) *bench {
	b.t.Helper()
	after := newBench(b.t, func(c *Config) {
		c.Upstream, _ = url.Parse(b.mlflow.server.URL)
		if change != nil {
			change(c)
		}
	})
	after.mlflow = b.mlflow
	after.proxy.Restore(store)
	return after
}

// killed goes on from what is kept now; nothing that this proxy does afterwards is known to the next.
func (b *bench) killed(change func(*Config)) *bench {
	b.t.Helper()
	store, _ := newStore(b.t)
	require.NoError(b.t, b.proxy.Keep(store))
	return b.again(store, change)
}

// A run goes on after the proxy was killed, or stopped, with all that it used meanwhile; nothing of that is partial.
func TestARunIsTakenUpAgainAfterARestart(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		b := newBench(t, nil)
		id := b.create("")
		if stopped {
			b.proxy.Drain(t.Context())
			require.Contains(t, b.mlflow.of(id).tags[tagStatus], "the proxy was stopped while the run went on")
		}
		before := b.proxy.collect().Meter.Totals.Runs
		again := b.killed(nil)
		require.Equal(t, 1, again.open())
		again.work()
		again.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		r := b.mlflow.of(id)
		assert.Equal(t, statusMeasured, r.tags[tagStatus])
		assert.NotContains(t, r.tags, tagClientMetrics)
		assert.InEpsilon(t, again.meter.Totals().Runs.Total().KWh(), r.metrics[metricEnergy], 1e-9, "with what it used before, and meanwhile")
		assert.Greater(t, r.metrics[metricEnergy], before.Total().KWh())
	}
}

// A run goes on inside its parent and in its phase when the proxy is started anew.
func TestNestingAndPhaseOutliveARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	parent := b.create("")
	for range 8 {
		b.create(`{"key":"mlflow.parentRunId","value":"` + parent + `"}`)
	}
	b.post("set-tag", `{"run_id":"`+parent+`","key":"emissions.phase","value":"inference"}`)
	first := b.meter.Totals().Runs.Total()
	again := b.killed(nil)
	again.work()
	again.post("update", `{"run_id":"`+parent+`","status":"FINISHED"}`)
	m := b.mlflow.of(parent).metrics
	all := again.meter.Totals().Runs.Total() // a parent has all of its children's
	assert.InEpsilon(t, all.KWh(), m[metricEnergy], 1e-9)
	assert.InDelta(t, carbon.Intensity(400).Emitted(first.KWh()).Grams(), m[metricTraining], 0.2*m[metricTraining])
	assert.Positive(t, m[metricInference])
}

// After another boot no process and no counter goes on: the figures so far are written, and say why they are partial.
func TestTheMachineWasRestarted(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	store, _ := newStore(t)
	k := b.proxy.collect()
	k.Meter.BootID = "another"
	require.NoError(t, b.proxy.save(store, k))
	again := b.again(store, nil)
	require.Eventually(t, func() bool { return again.open() == 0 && b.mlflow.of(id).metrics[metricEmissions] > 0 }, 10*time.Second, 10*time.Millisecond)
	r := b.mlflow.of(id)
	assert.Equal(t, "partial: the machine was restarted while the run went on", r.tags[tagStatus])
	assert.Equal(t, "RUNNING", r.status)
	assert.InEpsilon(t, k.Meter.Sessions[0].Record.Energy().Total().KWh(), r.metrics[metricEnergy], 1e-9)
}

// A late accuracy completes a run that had ended before the proxy was killed.
func TestALateAccuracyOutlivesARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	training := b.mlflow.of(id).metrics[metricEmissions]
	again := b.killed(nil)
	again.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 10*time.Second, 10*time.Millisecond)
	r := b.mlflow.of(id)
	assert.InEpsilon(t, 50/training, r.metrics[metricAccuracy], 1e-9)
	assert.Equal(t, training, r.metrics[metricEmissions], "nothing has changed of what it used")
}

// Figures that could not be written outlive the proxy: the next one writes the same bytes, and no credential is in the
// file meanwhile.
func TestUnwrittenFiguresOutliveARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	var mu sync.Mutex
	var seen [][]byte
	down := true
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if name != "log-batch" {
			return false
		}
		seen = append(seen, body)
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down
	}
	b.send("/api/2.0/mlflow/runs/update", `{"run_id":"`+id+`","status":"FINISHED"}`, http.Header{"Authorization": {"Bearer s3cret"}, "Cookie": {"s3cret"}})
	require.Equal(t, "FINISHED", b.mlflow.of(id).status)
	store, _ := newStore(t)
	require.NoError(t, b.proxy.Keep(store))
	b.proxy.drain() // so that it does not try any more
	file, err := os.ReadFile(store.path(storeFile))
	require.NoError(t, err)
	assert.NotContains(t, string(file), "s3cret")
	mu.Lock()
	down = false
	first := seen[0]
	mu.Unlock()

	b.again(store, nil)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricEmissions] > 0 }, 20*time.Second, 20*time.Millisecond)
	assert.Equal(t, string(first), string(b.mlflow.of(id).batches[0]))
}

// What is kept while the proxy runs is what it would keep: at a run's begin and end, and at the switch of its phase.
func TestRunsAreKeptAllTheTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	store, _ := newStore(t)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.proxy.Run(t.Context(), store) }()
	t.Cleanup(func() { <-ended }) // it writes once more
	onDisk := func() (k kept) {
		content, err := os.ReadFile(store.path(storeFile))
		if err != nil {
			return k
		}
		if content, err = unseal(content); err == nil {
			require.NoError(t, json.Unmarshal(content, &k))
		}
		return k
	}
	soon := func(what string, ok func(kept) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return ok(onDisk()) }, 4*time.Second, 5*time.Millisecond, what) // before the next turn
	}
	id := b.create("")
	soon("begin", func(k kept) bool { return len(k.Runs) == 1 && k.Runs[0].ID == id && k.Runs[0].Ended.IsZero() })
	b.post("set-tag", `{"run_id":"`+id+`","key":"emissions.phase","value":"inference"}`)
	soon("phase", func(k kept) bool { return len(k.Runs) == 1 && k.Runs[0].Phase == meter.Inference })
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	soon("end", func(k kept) bool { return len(k.Runs) == 1 && !k.Runs[0].Ended.IsZero() && k.Meter.Sessions[0].Closed })
	b.post("delete", `{"run_id":"`+id+`"}`)
	soon("delete", func(k kept) bool { return len(k.Runs) == 0 })
}

// notKept are a run's fields that are of the running program only.
var notKept = []string{
	"over", "write", "session", // kept by the meter
	"ending", "done", "pending", "failed", "owed", "completing", "behind", // of a write that is under way; what failed is in a letter
	"final", // of a run that is only served
	"nextLog", "cancelLive", "switching", "lateBy",
}

// Each field of a run goes through the file: one that is added later, and forgotten there, is found here.
func TestNothingOfARunIsForgotten(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 1, 2, 3, 0, time.UTC)
	n := 2.5
	r := newRun("run")
	r.parent, r.unmeasured, r.partial, r.left, r.ofModel = "parent", "unmeasured", "partial", "left", "model"
	single := carbon.Intensity(400)
	r.base = totals{
		energy: meter.Energies{1, 2, 3}, duration: 4, training: 5, inference: 6, low: 7, high: 8, inferred: true, untrained: true, predicting: 9, inferLow: 10, inferHigh: 11,
		electricity: electricity{Facility: 1, Grams: 2, Single: &single, Sources: "s", Kinds: "k"}, embodied: 12,
	}
	r.caller = mlflow.CallerOf(&http.Request{Header: http.Header{"X-Mlflow-Workspace": {"w"}}, URL: &url.URL{Path: "/p/api/2.0/mlflow/runs/update"}})
	r.began, r.created, r.recorded = at, at, true
	r.asked, r.step, r.stamp, r.unread, r.late, r.rests, r.wentOn, r.wanted = at, 1, 2, true, true, true, true, []string{"a"}
	r.ours, r.clients = map[string][]float64{"a": {1}}, map[string]bool{"b": true}
	r.byTag, r.evaluates, r.infers = meter.Inference, at, true
	r.scores, r.given = at, true
	s := span{"trace", at, at.Add(time.Second)}
	traced := tracedCount{map[string]float64{"source": 3}, recent{young: map[string]struct{}{"trace": {}}}, []span{s}, []undecided{{s, "source"}}}
	r.count = count{1, "by", 2, traced, map[string]*float64{"nested": &n, "unknown": nil}, 3, 4, "word", true, []string{"told"}}

	b, err := json.Marshal(r.keep())
	require.NoError(t, err)
	var k keptRun
	require.NoError(t, json.Unmarshal(b, &k))
	again := k.open()
	var compare func(name string, want, got reflect.Value)
	compare = func(name string, want, got reflect.Value) {
		for i := range want.NumField() {
			field := want.Type().Field(i)
			switch {
			case slices.Contains(notKept, field.Name):
			case field.Type == reflect.TypeFor[phases](), field.Type == reflect.TypeFor[count](), field.Type == reflect.TypeFor[totals](), field.Type == reflect.TypeFor[tracedCount]():
				compare(name+field.Name+".", want.Field(i), got.Field(i))
			default:
				assert.False(t, want.Field(i).IsZero(), "%s%s is not filled in by this test", name, field.Name)
			}
		}
	}
	compare("", reflect.ValueOf(r).Elem(), reflect.ValueOf(again).Elem())
	assert.Equal(t, r.keep(), again.keep())
	assert.True(t, r.began.Equal(again.began))
	assert.Equal(t, r.base, again.base)
	assert.Equal(t, r.count, again.count)
}

// Whatever a file holds, the proxy starts, goes on with what makes sense, and keeps it again.
func FuzzState(f *testing.F) {
	session := meter.KeptSession{ID: "a", Record: meter.Record{Scope: meter.ScopeMachine, Segments: []meter.Segment{{Phase: meter.Training}}}}
	over := session
	over.ID, over.Closed = "over", true
	content, err := json.Marshal(kept{
		Meter:   meter.Kept{BootID: "boot", Sessions: []meter.KeptSession{session, over}},
		Runs:    []keptRun{newRun("a").keep(), {ID: "a", Metered: true}, {ID: "over", Metered: true, Ended: time.Now().Add(time.Hour)}, {ID: "late", Late: true}},
		Letters: []keptLetter{{RunID: "over", Batch: []byte("{}")}, {RunID: "nobody"}},
	})
	require.NoError(f, err)
	f.Add(content, true)
	f.Add(seal(content), false)
	f.Add([]byte(`{"runs":[{"run_id":"a","metered":true},{"run_id":"a"},{"run_id":""}],"letters":[{"run_id":"a"},{"run_id":"c","batch":"e30="}]}`), true)
	procfs := f.TempDir()
	require.NoError(f, os.MkdirAll(filepath.Join(procfs, "sys", "kernel", "random"), 0o755))
	require.NoError(f, os.WriteFile(filepath.Join(procfs, "sys", "kernel", "random", "boot_id"), []byte("boot\n"), 0o644))
	supply, err := carbon.NewSupply(carbon.World(), nil, nil)
	require.NoError(f, err)
	nowhere := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, content []byte, sealed bool) {
		if sealed {
			content = seal(content)
		}
		dir, err := os.MkdirTemp("", "state")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		require.NoError(t, os.WriteFile(filepath.Join(dir, storeFile), content, 0o600))
		store, err := OpenStore(dir, log)
		require.NoError(t, err)
		defer store.Close()
		m := meter.New(meter.Config{Procfs: procfs, Sysfs: procfs, Logger: log})
		p, err := New(Config{Upstream: nowhere, Meter: m, Supply: supply, Logger: log}, prometheus.NewRegistry())
		require.NoError(t, err)
		p.Restore(store)
		b, err := json.Marshal(p.collect())
		require.NoError(t, err)
		var k kept
		require.NoError(t, json.Unmarshal(b, &k))
		p.Drain(t.Context())
	})
}

// A prediction that was made before a restart counts, though its trace comes after that.
func TestATraceOfBeforeARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	predicted := time.Now()
	b.work()
	again := b.killed(nil)
	b.mlflow.hook = func(_ http.ResponseWriter, _ *http.Request, name string, _ []byte) bool { return name == "traces" }
	again.trace(1, id, predicted, "")
	again.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Positive(t, b.mlflow.of(id).metrics[metricInferences])
}

// What came late and was about to be written when the proxy was killed is written by the next one.
func TestWhatWasAboutToBeCompletedOutlivesARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	b.mlflow.mu.Lock()
	b.mlflow.runs[id].metrics["test_accuracy"] = 0.5
	b.mlflow.mu.Unlock()
	r, _ := b.proxy.ended(id)
	b.proxy.mu.Lock()
	r.owed = true // as while complete waits for the server
	b.proxy.mu.Unlock()
	b.killed(nil)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 20*time.Second, 20*time.Millisecond)
}
