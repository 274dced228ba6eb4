package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// open creates a run by the test's own hand; the test's process is what is metered.
func (p *proxy) open() (id string) {
	p.t.Helper()
	return p.create(p.experiment(p.t.Name()))
}

// experiment returns the id of an experiment, which it makes if there is none of that name.
func (p *proxy) experiment(name string) string {
	p.t.Helper()
	code, body := call(p.t, http.MethodPost, p.url+"/api/2.0/mlflow/experiments/create", fmt.Sprintf(`{"name":%q}`, name))
	var experiment struct {
		ID         string `json:"experiment_id"`
		Experiment struct {
			ID string `json:"experiment_id"`
		}
	}
	if code != http.StatusOK {
		code, body = call(p.t, http.MethodGet, p.url+"/api/2.0/mlflow/experiments/get-by-name?experiment_name="+url.QueryEscape(name), "")
	}
	require.Equal(p.t, http.StatusOK, code, body)
	require.NoError(p.t, json.Unmarshal([]byte(body), &experiment))
	return experiment.ID + experiment.Experiment.ID
}

func (p *proxy) create(experiment string) string {
	p.t.Helper()
	code, body := call(p.t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/create", fmt.Sprintf(`{"experiment_id":%q,"start_time":1}`, experiment))
	require.Equal(p.t, http.StatusOK, code, body)
	var created struct {
		Run struct {
			Info struct {
				ID string `json:"run_id"`
			}
		}
	}
	require.NoError(p.t, json.Unmarshal([]byte(body), &created))
	return created.Run.Info.ID
}

func finished(id string) string {
	return fmt.Sprintf(`{"run_id":%q,"status":"FINISHED","end_time":2}`, id)
}

// used waits until runs have used some energy that is worth writing.
func (p *proxy) used() {
	p.t.Helper()
	eventually(p.t, "something is metered", func() bool { return p.metric(`emissions_energy_joules_total{component="cpu",owner="runs"}`) > 0 })
}

// Clients retry, and several ranks may end the same run: there is one session, and one set of figures.
func TestManyUpdatesOneSetOfFigures(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	id := p.open()
	p.used()
	codes := make([]int, 50)
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() {
			res, err := http.Post(p.url+"/api/2.0/mlflow/runs/update", "application/json", strings.NewReader(finished(id)))
			if err == nil {
				codes[i] = res.StatusCode
				_ = res.Body.Close()
			}
		})
	}
	wg.Wait()
	for _, code := range codes {
		assert.Equal(t, http.StatusOK, code)
	}
	for range 5 {
		code, body := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/update", finished(id))
		assert.Equal(t, http.StatusOK, code, body)
	}
	r := of(t, id)
	assert.Equal(t, "FINISHED", r.Status)
	figures(t, r)
	for _, key := range []string{"emissions_g", "emissions/energy_kwh", "emissions/duration_s"} {
		assert.Len(t, history(t, id, key), 1, key)
	}
	assert.Zero(t, p.metric("emissions_running_sessions"))
	assert.EqualValues(t, 1, p.metric(`emissions_figures_total{result="written"}`))
	assert.Zero(t, p.metric(`emissions_figures_total{result="failed"}`))
}

// A client that hangs up while its run's figures are written, and one that then tries again, leave one session's
// figures, all of one moment, and nothing running.
func TestAClientHangsUpDuringTheUpdate(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("tries again=%v", again), func(t *testing.T) {
			t.Parallel()
			b := startBetween(t)
			writing, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			b.hold = func(e event) <-chan struct{} {
				if !e.isFigures() {
					return nil
				}
				once.Do(func() { close(writing) })
				return release
			}
			p := startProxyAt(t, nil, "--upstream", b.url(), "--log-interval", "0")
			id := p.open()
			p.used()
			impatient, hangUp := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(impatient, http.MethodPost, p.url+"/api/2.0/mlflow/runs/update", strings.NewReader(finished(id)))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/json")
			gone := make(chan error, 1)
			go func() {
				res, err := http.DefaultClient.Do(req)
				if err == nil {
					_ = res.Body.Close()
				}
				gone <- err
			}()
			select {
			case <-writing:
			case <-time.After(30 * time.Second):
				t.Fatal("no figures on their way")
			}
			hangUp()
			require.ErrorIs(t, <-gone, context.Canceled)
			close(release)
			if again {
				code, body := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/update", finished(id))
				assert.Equal(t, http.StatusOK, code, body)
			}
			// The server would have carried the update out although its client hung up, so it ends in any case.
			eventually(t, "the run has ended", func() bool { return of(t, id).Status == "FINISHED" })
			eventually(t, "no session is left", func() bool { return p.metric("emissions_running_sessions") == 0 })
			r := of(t, id)
			figures(t, r)
			assert.Len(t, history(t, id, "emissions_g"), 1)
			at := r.Metrics["emissions_g"].Timestamp
			for key, m := range r.Metrics {
				assert.Equal(t, at, m.Timestamp, "%s is of the same moment", key)
			}
		})
	}
}

// A deleted run is forgotten: nothing more is metered, nothing is written.
func TestADeletedRunIsForgotten(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	id := p.open()
	code, body := call(t, http.MethodPost, p.url+"/api/2.0/mlflow/runs/delete", fmt.Sprintf(`{"run_id":%q}`, id))
	require.Equal(t, http.StatusOK, code, body)
	assert.Zero(t, p.metric("emissions_running_sessions"))
	p.stop() // which would write the figures of what still runs
	assert.Empty(t, of(t, id).Metrics)
}

// A client elsewhere is told that its energy cannot be read here; the proxy's own host never stands in for it.
func TestAClientElsewhereIsUnmeasured(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--local-clients", "192.0.2.0/24")
	r := of(t, p.run("plain")["run"])
	assert.Equal(t, "FINISHED", r.Status)
	assert.Regexp(t, `^unmeasured: .*--local-clients`, r.Tags["emissions.status"])
	for key := range r.Metrics {
		assert.NotContains(t, key, "emission")
	}
}

func TestScopeOfTheMachine(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--scope", "machine", "--pue", "1.5", "--wall-slope", "1.2", "--wall-offset-w", "50")
	r := of(t, p.run("plain")["run"])
	assert.Equal(t, "machine", r.Tags["emissions.scope"])
	assert.Equal(t, "1.5", r.Tags["emissions.pue"])
	assert.Equal(t, fmt.Sprint(intensity), r.Tags["emissions.intensity"])
	kWh := r.Metrics["emissions/energy_kwh"].Value
	assert.InEpsilon(t, kWh*intensity*1.5, r.Metrics["emissions_g"].Value, 1e-9)
	// All of the machine, and what no sensor sees of it.
	assert.Equal(t, "line", r.Tags["emissions.method.wall"])
	assert.Greater(t, kWh*3.6e6/r.Metrics["emissions/duration_s"].Value, 50.0, "W")
	assert.InEpsilon(t, 1.1, r.Metrics["emissions/high_g"].Value/r.Metrics["emissions_g"].Value, 1e-9)
}
