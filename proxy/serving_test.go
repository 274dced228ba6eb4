package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
)

// scorer is a scoring server in a process of its own: it works for a tenth of a second at each request.
const scorer = `
import http.server, time
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        end = time.process_time() + 0.1
        while time.process_time() < end: pass
        self.send_response(400 if self.path.startswith('/bad') else 200)
        self.send_header('Content-Type', 'application/json')
        self.end_headers()
        self.wfile.write(b'{"predictions": [1, 2, 3, 4, 5]}')
    def log_message(self, *a): pass
s = http.server.HTTPServer(('127.0.0.1', 0), H)
print(s.server_port, flush=True)
s.serve_forever()
`

// startScorer starts a scoring server whose model says that it came from a run.
func startScorer(t *testing.T, run string) (*url.URL, *exec.Cmd) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 to score with")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "MLmodel"), []byte("flavors: {}\nrun_id: "+run+"\n"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, python, "-c", scorer)
	cmd.Env = append(os.Environ(), variableModel+"="+(&url.URL{Scheme: "file", Path: dir}).String())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return &url.URL{Scheme: "http", Host: "127.0.0.1:" + strings.TrimSpace(port)}, cmd
}

// served is a proxy in front of a scoring server as well.
type servedBench struct {
	*bench
	serving *Serving
	score   string // where clients score
	stop    func()
}

func newServedBench(t *testing.T, b *bench, scorer *url.URL) *servedBench {
	t.Helper()
	addresses, err := AddressesOf(t.Context(), scorer)
	require.NoError(t, err)
	v := &servedBench{bench: b, serving: b.proxy.NewServing(ServingConfig{URL: scorer, Addresses: addresses})}
	front := httptest.NewUnstartedServer(nil)
	front.Config = v.serving.Server()
	front.Start()
	v.score = front.URL
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = v.serving.Run(ctx) })
	v.stop = sync.OnceFunc(func() {
		front.Close()
		cancel()
		done.Wait()
		ending, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		v.serving.Stop(ending)
		b.proxy.Drain(ending)
	})
	t.Cleanup(v.stop)
	require.Eventually(t, func() bool {
		v.serving.mu.Lock()
		defer v.serving.mu.Unlock()
		return v.serving.session != nil || v.serving.said != ""
	}, 10*time.Second, 5*time.Millisecond)
	return v
}

func (v *servedBench) ask(path, contentType, body string) (int, string) {
	v.t.Helper()
	res, err := http.Post(v.score+path, contentType, strings.NewReader(body))
	require.NoError(v.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(v.t, err)
	return res.StatusCode, string(b)
}

// settled waits until the server has come to rest.
func (v *servedBench) settled() {
	v.t.Helper()
	require.Eventually(v.t, func() bool {
		v.serving.mu.Lock()
		defer v.serving.mu.Unlock()
		return !v.serving.works
	}, 10*time.Second, 5*time.Millisecond)
}

func processes(c *Config) { c.Scope = meter.ScopeProcess }

// Predictions of a run's model are the run's, whoever serves it and whenever: what they emit is added to its inference phase,
// once, and what its training emitted stays.
func TestServing(t *testing.T) {
	t.Parallel()
	b := newBench(t, processes)
	id := b.create("")
	b.finish(id)
	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`)
	b.mlflow.mu.Lock()
	b.mlflow.runs[id].metrics = map[string]float64{metricEmissions: 2, metricDuration: 100, metricLow: 1.8, metricHigh: 2.2, "test_accuracy": 0.5}
	b.mlflow.runs[id].tags = map[string]string{tagVersion: "test", tagStatus: statusMeasured}
	b.mlflow.mu.Unlock()
	b.proxy.finished.Flush() // it ended days ago

	scorer, _ := startScorer(t, id)
	v := newServedBench(t, b, scorer)
	code, answer := v.ask("/invocations", "application/json", `{"inputs": [[1], [2]]}`)
	assert.Equal(t, 200, code)
	assert.Equal(t, `{"predictions": [1, 2, 3, 4, 5]}`, answer)
	_, _ = v.ask("/invocations", "text/csv", "a\n1\n2\n3\n")
	_, _ = v.ask("/invocations", "application/vnd.apache.parquet", "PAR1") // the answer tells
	code, _ = v.ask("/bad/invocations", "application/json", `{"inputs": [1, 2, 3, 4, 5, 6, 7, 8]}`)
	assert.Equal(t, 400, code)
	_, _ = v.ask("/ping", "application/json", `{"inputs": [1, 2, 3, 4, 5, 6, 7, 8]}`)
	v.settled()
	v.stop()

	r := b.mlflow.of(id)
	assert.Equal(t, "10", r.tags[tagInferences])
	assert.Equal(t, sourceServing, r.tags[tagInferenceSource])
	assert.Equal(t, statusMeasured, r.tags[tagStatus])
	assert.Greater(t, r.metrics[metricInference], 0.0)
	assert.InEpsilon(t, 2, r.metrics[metricTraining], 1e-9)
	assert.InEpsilon(t, 2+r.metrics[metricInference], r.metrics[metricEmissions], 1e-9)
	assert.InEpsilon(t, 10*r.metrics[metricInference]/10, r.metrics[metricInferences], 1e-9)
	assert.InEpsilon(t, 25, r.metrics[metricAccuracy], 1e-9)
	assert.Less(t, r.metrics[metricLow], r.metrics[metricEmissions])
	assert.Greater(t, r.metrics[metricDuration], 100.0)

	// A proxy that is started again goes on from what stands in the run.
	again := newBench(t, processes)
	again.mlflow.runs = b.mlflow.runs
	w := newServedBench(t, again, scorer)
	_, _ = w.ask("/invocations", "application/json", `{"instances": [1, 2, 3, 4, 5]}`)
	w.settled()
	w.stop()
	more := again.mlflow.of(id)
	assert.Equal(t, "15", more.tags[tagInferences])
	assert.Greater(t, more.metrics[metricInference], r.metrics[metricInference])
	assert.InEpsilon(t, 2, more.metrics[metricTraining], 1e-9)
	assert.InEpsilon(t, 10*more.metrics[metricInference]/15, more.metrics[metricInferences], 1e-9)
	assert.NotContains(t, more.tags, tagClientMetrics, "what the proxy before wrote is ours")
}

// An idle server must not make each prediction as dear as one likes: what it uses between requests is nobody's.
func TestServingLeavesIdleTimeOut(t *testing.T) {
	t.Parallel()
	b := newBench(t, processes)
	id := b.create("")
	b.finish(id)
	scorer, _ := startScorer(t, id)
	v := newServedBench(t, b, scorer)
	_, _ = v.ask("/invocations", "application/json", `{"inputs": 1}`)
	v.settled()
	segments := v.serving.session.Record().Segments
	assert.Equal(t, idle, segments[len(segments)-1].Phase)
	v.serving.harvest()
	used := v.serving.due[id].used
	require.Greater(t, used.predicting, 90*time.Millisecond)
	v.meter.Sample()
	v.serving.harvest()
	assert.Equal(t, used, v.serving.due[id].used)
	assert.Equal(t, 1.0, v.serving.due[id].rows)
}

// What the server may or may not have taken must be neither lost nor added twice, over a restart as well.
func TestServingOverAnOutage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		taken bool // the server takes the batch, and its answer is lost
	}{{"not taken", false}, {"taken", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, processes)
			id := b.create("")
			b.finish(id)
			b.proxy.finished.Flush()
			scorer, _ := startScorer(t, id)
			v := newServedBench(t, b, scorer)
			dir := t.TempDir()
			b.mlflow.hook = func(w http.ResponseWriter, r *http.Request, name string, body []byte) bool {
				if name != "log-batch" {
					return false
				}
				if c.taken {
					b.mlflow.mu.Lock()
					hook := b.mlflow.hook
					b.mlflow.hook = nil
					b.mlflow.mu.Unlock()
					r.Body = io.NopCloser(bytes.NewReader(body))
					b.mlflow.ServeHTTP(httptest.NewRecorder(), r)
					b.mlflow.mu.Lock()
					b.mlflow.hook = hook
					b.mlflow.mu.Unlock()
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			_, _ = v.ask("/invocations", "application/json", `{"inputs": [1, 2]}`)
			v.settled()
			v.stop()
			require.NoError(t, v.serving.Keep(dir))

			again := newBench(t, processes)
			again.mlflow.runs = b.mlflow.runs
			addresses, err := AddressesOf(t.Context(), scorer)
			require.NoError(t, err)
			s := again.proxy.NewServing(ServingConfig{URL: scorer, Addresses: addresses})
			require.NoError(t, s.Restore(dir))
			s.Stop(t.Context())
			again.proxy.Drain(t.Context())
			r := again.mlflow.of(id)
			assert.Equal(t, "2", r.tags[tagInferences])
			assert.Greater(t, r.metrics[metricInference], 0.0)
			assert.InEpsilon(t, 10*r.metrics[metricInference]/2, r.metrics[metricInferences], 1e-9)
			assert.NoFileExists(t, filepath.Join(dir, servingFile))
		})
	}
}

// A run that is trained still has another writer of the same metrics; what serving used is added when it is over.
func TestServingARunThatGoesOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	s.due[id] = due{used: totals{inference: 3, duration: time.Second, predicting: time.Second, inferred: true}, rows: 6}
	s.write(t.Context())
	assert.NotContains(t, b.mlflow.of(id).metrics, metricInference)
	b.finish(id)
	trained := b.mlflow.of(id).metrics[metricEmissions]
	s.write(t.Context())
	r := b.mlflow.of(id)
	assert.InEpsilon(t, trained+3, r.metrics[metricEmissions], 1e-9)
	assert.InEpsilon(t, trained, r.metrics[metricTraining], 1e-9)
	assert.InEpsilon(t, 5, r.metrics[metricInferences], 1e-9)

	b.post("log-metric", `{"run_id":"`+id+`","key":"test_accuracy","value":0.5}`) // comes late, and changes nothing else
	late := b.mlflow.of(id)
	assert.InEpsilon(t, 50/trained, late.metrics[metricAccuracy], 1e-9)
	assert.InEpsilon(t, trained+3, late.metrics[metricEmissions], 1e-9)
}

// The user's count is of the predictions before; those of the server are added to it, and not twice.
func TestServingBesideTheUsersCount(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create(`"tags":[{"key":"emissions.phase","value":"inference"}]`)
	b.tag(id, tagInferences, "4")
	b.work()
	b.finish(id)
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	for _, want := range []string{"10", "16"} {
		s.due[id] = due{used: totals{inference: 3, predicting: time.Second, inferred: true}, rows: 6}
		s.write(t.Context())
		r := b.mlflow.of(id)
		assert.Equal(t, want, r.tags[tagInferences])
		assert.Equal(t, "tag+serving", r.tags[tagInferenceSource])
	}
	b.proxy.finished.Flush()
	s.due[id] = due{used: totals{inference: 3, predicting: time.Second, inferred: true}, rows: 1}
	s.write(t.Context())
	assert.Equal(t, "17", b.mlflow.of(id).tags[tagInferences])
	assert.InEpsilon(t, 10*b.mlflow.of(id).metrics[metricInference]/17, b.mlflow.of(id).metrics[metricInferences], 1e-9)
}

// What the training of a run took that was not metered is not known, and 0 g would be a lie.
func TestServingARunThatWasNotMetered(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.mlflow.runs["r1"] = &fakeRun{status: "FINISHED", metrics: map[string]float64{"test_accuracy": 0.5}, tags: map[string]string{}}
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	for n := range 3 {
		s.due["r1"] = due{used: totals{inference: 3, duration: time.Second, predicting: time.Second, inferred: true}, rows: 6}
		s.write(t.Context())
		r := b.mlflow.of("r1")
		assert.NotContains(t, r.metrics, metricTraining)
		assert.NotContains(t, r.metrics, metricAccuracy)
		assert.InEpsilon(t, 3*(n+1), r.metrics[metricEmissions], 1e-9)
		assert.InEpsilon(t, 5, r.metrics[metricInferences], 1e-9)
		assert.Equal(t, statusPartial+notTrainedHere, r.tags[tagStatus])
		b.proxy.finished.Flush() // as after a restart
	}
}

// Who leaves a run alone leaves it alone while it is served, too.
func TestServingARunThatIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	b.mlflow.runs["r1"] = &fakeRun{status: "FINISHED", metrics: map[string]float64{}, tags: map[string]string{tagSkip: "true"}}
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	s.due["r1"] = due{used: totals{inference: 3, predicting: time.Second, inferred: true}, rows: 6}
	s.write(t.Context())
	assert.Empty(t, b.mlflow.of("r1").batches)
	assert.Empty(t, s.due)
}

func TestRunOfModel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"flavors:\n  python_function:\n    run_id: no\nrun_id: 48b1067b668b47838a1a19dec73e315f\n": "48b1067b668b47838a1a19dec73e315f",
		"run_id: null\n": "",
		"flavors: {}\n":  "",
		"\t":             "",
	} {
		path := filepath.Join(t.TempDir(), "MLmodel")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		run, err := runOfModel(path)
		assert.Equal(t, want, run)
		assert.Equal(t, want == "", err != nil)
	}
	_, err := runOfModel(filepath.Join(t.TempDir(), "MLmodel"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Another machine's energy cannot be read here: it is said at the start.
func TestAddressesOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://127.0.0.1:5883": "127.0.0.1:5883",
		"http://0.0.0.0:5883":   "127.0.0.1:5883",
		"https://127.0.0.1/x":   "127.0.0.1:443",
		"http://192.0.2.1:80":   "",
		"http://[2001:db8::1]":  "",
		"http://127.0.0.1:x":    "",
	} {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		addresses, err := AddressesOf(t.Context(), u)
		if want == "" {
			assert.Error(t, err, text)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, want, addresses[0].String())
	}
}

// All that is known of what serving used is kept: the electricity, and what making the machine emitted, too.
func TestNothingOfWhatServingUsedIsForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	dir := t.TempDir()
	single := carbon.Intensity(400)
	d := due{
		used: totals{
			energy: meter.Energies{1, 2, 3}, duration: 4, inference: 6, low: 7, high: 8, inferred: true, predicting: 9, inferLow: 10, inferHigh: 11,
			electricity: electricity{Ledger: carbon.Ledger{}, Facility: 1, Grams: 2, Single: &single, Sources: "s", Kinds: "k"}, embodied: 12,
		},
		rows: 5, partial: "partial", tried: 13,
	}
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	s.takeIn("run", d)
	require.NoError(t, s.Keep(dir))
	again := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	require.NoError(t, again.Restore(dir))
	assert.Equal(t, map[string]due{"run": d}, again.due)
}

// A run that is resumed just when it is to be given what serving it used gets that once it is over.
func TestServingARunThatIsResumedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	id := b.create("")
	b.finish(id)
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	s.due[id] = due{used: totals{inference: 3, duration: time.Second, predicting: time.Second, inferred: true}, rows: 6}
	r, err := s.served(t.Context(), id)
	require.NoError(t, err)
	b.post("update", `{"run_id":"`+id+`","status":"RUNNING"}`)
	s.give(r)
	assert.Contains(t, s.due, id)
	b.finish(id)
	s.write(t.Context())
	assert.InEpsilon(t, 3, b.mlflow.of(id).metrics[metricInference], 1e-9)
}
