package proxy

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/meter"
)

// A sensor's driver may hang, as NVIDIA's does when a card falls off the bus. Clients get the server's answers all the
// same, and what was held up is done once the driver is back.
func TestASensorThatHangsKeepsNoClient(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	back := make(chan struct{})
	b := newBench(t, func(c *Config) {
		c.Meter = meter.New(meter.Config{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time {
			if hangs.Load() {
				<-back
			}
			return time.Now()
		}})
	})
	id := b.create("")
	hangs.Store(true)
	client := &http.Client{Timeout: 4 * time.Second}
	for _, call := range []struct{ name, body string }{
		{"create", `{"experiment_id":"0"}`},
		{"set-tag", `{"run_id":"` + id + `","key":"emissions.phase","value":"inference"}`},
		{"log-metric", `{"run_id":"` + id + `","key":"example_count","value":3}`},
		{"log-metric", `{"run_id":"` + id + `","key":"emissions_g","value":3}`},
		{"log-metric", `{"run_id":"` + id + `","key":"loss","value":3}`},
		{"update", `{"run_id":"` + id + `","status":"FINISHED"}`},
	} {
		began := time.Now()
		res, err := client.Post(b.url+"/api/2.0/mlflow/runs/"+call.name, "application/json", strings.NewReader(call.body))
		if assert.NoError(t, err, call.name) {
			_ = res.Body.Close()
			assert.Equal(t, http.StatusOK, res.StatusCode, call.name)
		}
		assert.Less(t, time.Since(began), 3*time.Second, call.name)
	}
	assert.Equal(t, "FINISHED", b.mlflow.of(id).status)
	close(back)
	require.Eventually(t, func() bool { return b.mlflow.of(id).metrics[metricEnergy] > 0 && b.open() == 1 }, 10*time.Second, 10*time.Millisecond,
		"the run that ended has its figures; the one that was created is metered")
}

// While the meter keeps what serving used waiting, nobody else waits for that.
func TestASensorThatHangsKeepsOnlyServing(t *testing.T) {
	t.Parallel()
	var hangs atomic.Bool
	asked, back := make(chan struct{}, 100), make(chan struct{})
	b := newBench(t, func(c *Config) {
		c.Meter = meter.New(meter.Config{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time {
			if hangs.Load() {
				asked <- struct{}{}
				<-back
			}
			return time.Now()
		}})
	})
	id := b.create("")
	b.finish(id)
	r, ended := b.proxy.ended(id)
	require.True(t, ended)
	s := b.proxy.NewServing(ServingConfig{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
	hangs.Store(true)
	done := make(chan struct{})
	go func() { defer close(done); s.give(r) }()
	<-asked
	free := b.proxy.mu.TryLock()
	if free {
		b.proxy.mu.Unlock()
	}
	close(back)
	<-done
	assert.True(t, free)
}
