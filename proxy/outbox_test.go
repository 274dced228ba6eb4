package proxy

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// tries are the server's log-batch calls, by credential and body.
type tries struct {
	mu     sync.Mutex
	seen   []string
	bodies [][]byte
	status int // what log-batch answers; 0: as the server does
	header http.Header
}

// watch makes the server answer log-batch as tries says.
func (b *bench) watch() *tries {
	s := &tries{header: http.Header{}}
	b.mlflow.mu.Lock()
	defer b.mlflow.mu.Unlock()
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if name != "log-batch" {
			return false
		}
		s.seen, s.bodies = append(s.seen, r.Header.Get("Authorization")), append(s.bodies, body)
		if s.status == 0 {
			return false
		}
		for k, v := range s.header {
			w.Header()[k] = v
		}
		w.WriteHeader(s.status)
		return true
	}
	return s
}

func (s *tries) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *tries) by() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

func (b *bench) waiting() int {
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	return len(b.proxy.letters)
}

func (b *bench) as(who, name, body string) int {
	b.t.Helper()
	code, _ := b.send("/api/2.0/mlflow/runs/"+name, body, http.Header{"Authorization": {who}})
	return code
}

// What the server answers decides whether figures are tried again, always with the same bytes, or given up.
func TestWhichAnswersAreForGood(t *testing.T) {
	t.Parallel()
	for status, forGood := range map[int]bool{400: true, 404: false, 413: true, 401: false, 403: false, 408: false, 429: false, 500: false, 503: false, 504: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			id := b.create("")
			s := b.watch()
			s.answer(status)
			require.Equal(t, 200, b.as("me", "update", `{"run_id":"`+id+`","status":"FINISHED"}`), "the client's answer is the server's")
			if forGood {
				assert.Zero(t, b.waiting())
				return
			}
			require.Equal(t, 1, b.waiting())
			s.answer(0)
			require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 10*time.Millisecond)
			require.Len(t, s.bodies, 2)
			assert.Equal(t, s.bodies[0], s.bodies[1])
			assert.Positive(t, b.mlflow.of(id).metrics[metricEmissions])
		})
	}
	err := fmt.Errorf("log figures: %w", &mlflow.APIError{StatusCode: 404, Code: "RESOURCE_DOES_NOT_EXIST"})
	assert.True(t, refused(err), "MLflow itself says that there is no such run; a gateway knows nothing of it")
}

// A server that says when to come back is not asked before.
func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	s := b.watch()
	s.answer(429)
	s.header.Set("Retry-After", "3600")
	b.as("me", "update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	b.proxy.mu.Lock()
	l := b.proxy.letters[id]
	b.proxy.mu.Unlock()
	require.NotNil(t, l)
	assert.True(t, l.next.After(time.Now().Add(50*time.Minute)))
	s.answer(0)
	b.as("me", "set-tag", `{"run_id":"`+id+`","key":"a","value":"b"}`)
	assert.Never(t, func() bool { return len(s.by()) > 1 }, 100*time.Millisecond, 10*time.Millisecond, "a request about the run does not change that")
}

// An expired token is not tried for ever: the next request about the run that the server lets pass lends its own, and
// only that.
func TestTheNextRequestLendsItsCredentials(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	s := b.watch()
	s.answer(401)
	b.as("old", "update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.Equal(t, []string{"old"}, s.by())
	s.answer(0)
	hook := b.mlflow.hook
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
		if name == "set-tag" && r.Header.Get("Authorization") == "stranger" {
			w.WriteHeader(403)
			return true
		}
		return hook(w, r, name, body)
	}
	b.mlflow.mu.Unlock()
	assert.Equal(t, 403, b.as("stranger", "set-tag", `{"run_id":"`+id+`","key":"a","value":"b"}`))
	assert.Equal(t, 200, b.as("new", "set-tag", `{"run_id":"`+id+`","key":"a","value":"b"}`))
	require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 10*time.Millisecond)
	assert.NotContains(t, s.by(), "stranger")
	assert.Contains(t, s.by(), "new")
}

// The proxy's own token writes what nobody comes back to: after a restart, when the callers' credentials are gone, and
// when they are no good any more. It is read anew each time.
func TestTheProxysOwnToken(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("first\n"), 0o600))
	with := func(c *Config) { c.Token = mlflow.TokenFile(token) }
	b := newBench(t, with)
	id := b.create("")
	s := b.watch()
	hook := b.mlflow.hook
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
		if name == "log-batch" && r.Header.Get("Authorization") == "old" {
			hook(w, r, name, body)
			w.WriteHeader(401)
			return true
		}
		return hook(w, r, name, body)
	}
	b.mlflow.mu.Unlock()
	b.as("old", "update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 10*time.Millisecond)
	assert.Equal(t, []string{"old", "old", "Bearer first"}, s.by(), "the client's own comes first")

	other := b.create("")
	require.NoError(t, os.WriteFile(token, []byte("second"), 0o600))
	store, _ := newStore(t)
	k := b.proxy.collect()
	k.Meter.BootID = "another"
	require.NoError(t, b.proxy.save(store, k))
	b.again(store, with)
	require.Eventually(t, func() bool { return b.mlflow.of(other).metrics[metricEmissions] > 0 }, 20*time.Second, 10*time.Millisecond)
	assert.Equal(t, "Bearer second", s.by()[3])
}

// A run whose final figures are still on their way when it is resumed goes on from what they say, and nothing that is
// older is written over what is newer.
func TestARunIsResumedWhileItsFiguresWait(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	s := b.watch()
	s.answer(503)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	require.Equal(t, 1, b.waiting())
	b.proxy.mu.Lock()
	b.proxy.letters[id].timer.Stop() // until the test is done
	b.proxy.mu.Unlock()
	first := b.meter.Totals().Runs.Total()
	b.post("update", `{"run_id":"`+id+`","status":"RUNNING"}`)
	require.Equal(t, 1, b.open())
	b.work()
	s.answer(0)
	b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	assert.Zero(t, b.waiting(), "the older ones are in these")
	r := b.mlflow.of(id)
	assert.InEpsilon(t, b.meter.Totals().Runs.Total().KWh(), r.metrics[metricEnergy], 1e-9)
	assert.Greater(t, r.metrics[metricEnergy], first.KWh())
	assert.Len(t, r.batches, 1)
}

// Steps and times never go back, though the clock may: MLflow would show an older value.
func TestStepsNeverGoBack(t *testing.T) {
	t.Parallel()
	r := newRun("run")
	now := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	step, stamp := r.stepAt(100*time.Second, now)
	assert.EqualValues(t, 100, step)
	assert.Equal(t, now.UnixMilli(), stamp)
	again, later := r.stepAt(90*time.Second, now.Add(-time.Hour))
	assert.Equal(t, step, again)
	assert.Equal(t, stamp+1, later)
	step, stamp = r.stepAt(200*time.Second, now.Add(time.Second))
	assert.EqualValues(t, 200, step)
	assert.Equal(t, now.Add(time.Second).UnixMilli(), stamp)
}

// A run without a process of which nothing is heard is metered until then, and no longer; what is nested in it is heard
// for it. Who logs to it later takes it up again, and the time between is said.
func TestIdleRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.MaxIdle = 200 * time.Millisecond })
	parent := b.create("")
	child := b.create(`{"key":"mlflow.parentRunId","value":"` + parent + `"}`)
	b.proxy.mu.Lock()
	b.proxy.runs[child].asked = time.Now().Add(time.Hour)
	b.proxy.mu.Unlock()
	assert.True(t, b.proxy.heardOf(b.proxy.find(parent)).After(time.Now()))
	b.post("update", `{"run_id":"`+child+`","status":"FINISHED"}`)

	b.post("log-metric", `{"run_id":"`+parent+`","key":"loss","value":1}`)
	heard := time.Now()
	b.work()
	go func() { _ = b.proxy.Run(t.Context(), nil) }()
	require.Eventually(t, func() bool { return b.open() == 0 }, 20*time.Second, 20*time.Millisecond)
	r := b.mlflow.of(parent)
	assert.Equal(t, "RUNNING", r.status)
	assert.Equal(t, statusMeasured, r.tags[tagStatus])
	old, ok := b.proxy.ended(parent)
	require.True(t, ok)
	record := old.session.Record()
	end := record.Segments[len(record.Segments)-1].End
	assert.WithinDuration(t, heard, end, 2*time.Second)
	assert.False(t, end.After(heard))
	first := r.metrics[metricEnergy]

	b.post("log-metric", `{"run_id":"`+parent+`","key":"loss","value":1}`)
	require.Equal(t, 1, b.open())
	b.work()
	b.post("update", `{"run_id":"`+parent+`","status":"FINISHED"}`)
	r = b.mlflow.of(parent)
	assert.Greater(t, r.metrics[metricEnergy], first)
	assert.Regexp(t, `^partial: .*nothing was heard of it for 200ms, and for \d+ s it was not metered$`, r.tags[tagStatus])
}

// A run that was left is over for good when somebody says so, on MLflow's pages or with MLflow's command.
func TestALeftRunIsEndedAfterAll(t *testing.T) {
	t.Parallel()
	for path, status := range map[string]string{
		"/ajax-api/2.0/mlflow/runs/update": "^measured$",
		"/api/2.0/mlflow/runs/update":      "^partial: gone for a while, and for 0 s it was not metered$",
	} {
		b := newBench(t, nil)
		id := b.create("")
		b.proxy.leave(b.proxy.find(id), "gone for a while", time.Time{})
		before := b.mlflow.of(id).metrics[metricEnergy]
		require.Positive(t, before)
		code, _ := b.send(path, `{"run_id":"`+id+`","status":"KILLED"}`, nil)
		require.Equal(t, 200, code)
		b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
		require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricAccuracy] > 0 }, 10*time.Second, 10*time.Millisecond, path)
		assert.Zero(t, b.open())
		r := b.mlflow.of(id)
		assert.Regexp(t, status, r.tags[tagStatus], path)
		assert.Equal(t, before, r.metrics[metricEnergy])
	}
}

// Runs of clients elsewhere have no process here either: they are not kept for ever, and say that they are unmeasured.
func TestAnIdleRunOfAClientElsewhere(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LocalClients, c.MaxIdle = nil, 100*time.Millisecond })
	id := createElsewhere(b)
	go func() { _ = b.proxy.Run(t.Context(), nil) }()
	require.Eventually(t, func() bool { return b.open() == 0 }, 20*time.Second, 20*time.Millisecond)
	r := b.mlflow.of(id)
	assert.Contains(t, r.tags[tagStatus], "unmeasured: ")
	assert.Empty(t, r.metrics)
}

func createElsewhere(b *bench) string {
	code, answer := b.post("create", `{"experiment_id":"0"}`)
	require.Equal(b.t, 200, code)
	require.Contains(b.t, answer, "run1")
	return "run1"
}

// A run of a client elsewhere whose status could not be written yet has no figures, whatever comes late for it: those of
// nothing would be zeros.
func TestWhatComesLateForAnUnmeasuredRunThatWaits(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.LocalClients = nil })
	id := createElsewhere(b)
	s := b.watch()
	s.answer(http.StatusServiceUnavailable)
	b.finish(id)
	require.Equal(t, 1, b.waiting())
	s.answer(0)
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 20*time.Millisecond)
	b.proxy.writers.Wait()
	r := b.mlflow.of(id)
	assert.Equal(t, map[string]float64{"test_accuracy": 0.5}, r.metrics)
	assert.Contains(t, r.tags[tagStatus], "unmeasured: ")
}

// unwritten is a run that ended while the server took no figures, and the letter in which they wait.
func (b *bench) unwritten() (id string, l *letter) {
	b.t.Helper()
	id = b.create("")
	b.watch().answer(http.StatusServiceUnavailable)
	b.finish(id)
	require.Equal(b.t, 1, b.waiting())
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	return id, b.proxy.letters[id]
}

// Figures that are put into a letter just while its earlier ones are on their way are not taken for written with them.
func TestLaterFiguresWhileEarlierOnesAreOnTheirWay(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id, l := b.unwritten()
	asked, goOn := make(chan struct{}, 9), make(chan struct{})
	var first sync.Once
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(_ http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name == "log-batch" {
			first.Do(func() { asked <- struct{}{}; <-goOn })
		}
		return false
	}
	b.mlflow.mu.Unlock()
	b.proxy.mu.Lock()
	b.proxy.tryAt(l, time.Now())
	b.proxy.mu.Unlock()
	<-asked
	later, err := mlflow.Batch(id, []mlflow.Metric{{Key: "later", Value: 1}}, nil)
	require.NoError(t, err)
	b.proxy.post(l.run, later, mlflow.Caller{}, nil)
	close(goOn)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics["later"] == 1 }, 20*time.Second, 20*time.Millisecond)
	require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 20*time.Millisecond)
}

// However many requests about a run come while its letter is on its way, one courier carries it: there are others who wait.
func TestOneCourierCarriesALetter(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	_, l := b.unwritten()
	asked, goOn := make(chan struct{}, 9), make(chan struct{})
	b.mlflow.mu.Lock()
	b.mlflow.hook = func(_ http.ResponseWriter, _ *http.Request, name string, _ []byte) bool {
		if name == "log-batch" {
			asked <- struct{}{}
			<-goOn
		}
		return false
	}
	b.mlflow.mu.Unlock()
	b.proxy.background(func() { b.proxy.deliver(l) })
	<-asked
	for range couriers {
		b.proxy.background(func() { b.proxy.deliver(l) })
	}
	assert.Never(t, func() bool { return len(b.proxy.couriers) > 1 }, 200*time.Millisecond, 5*time.Millisecond)
	close(goOn)
	require.Eventually(t, func() bool { return b.waiting() == 0 }, 20*time.Second, 20*time.Millisecond)
}
