package proxy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/meter"
)

// A parent whose executors are on other machines would pass for wholly measured.
func TestAParentSaysThatANestedRunIsMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	outer := b.create("")
	inner := b.create(`{"key":"mlflow.parentRunId","value":"` + outer + `"}`)
	b.proxy.cfg.LocalClients = nil // who comes from now on is elsewhere
	far := b.create(`{"key":"mlflow.parentRunId","value":"` + inner + `"}`)
	for _, id := range []string{far, inner, outer} {
		b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
	}
	assert.Contains(t, b.mlflow.of(far).tags[tagStatus], "unmeasured: the client 127.0.0.1 is on another machine")
	for _, id := range []string{inner, outer} {
		r := b.mlflow.of(id)
		assert.Contains(t, r.tags[tagStatus], "partial: a run nested in it is not in its figures: the client 127.0.0.1 is on another machine")
		assert.Positive(t, r.metrics[metricEmissions])
	}
}

// A client may create a run and say only then what it is nested in: by set-tag, or in a batch.
func TestARunThatIsNestedByALaterTagIsItsParents(t *testing.T) {
	t.Parallel()
	for name, tag := range map[string]func(inner, outer string) string{
		"set-tag": func(inner, outer string) string {
			return `{"run_id":"` + inner + `","key":"mlflow.parentRunId","value":"` + outer + `"}`
		},
		"log-batch": func(inner, outer string) string {
			return `{"run_id":"` + inner + `","tags":[{"key":"mlflow.parentRunId","value":"` + outer + `"}]}`
		},
	} {
		b := newBench(t, nil)
		outer, inner := b.create(""), b.create("")
		b.post(name, tag(inner, outer))
		b.work()
		for _, id := range []string{inner, outer} {
			b.post("update", `{"run_id":"`+id+`","status":"FINISHED"}`)
		}
		// The two are all that is metered, so that the outer one has what the machine used from its beginning on. It was
		// the half of it while they were unrelated.
		assert.InEpsilon(t, b.meter.Totals().Runs.Total().KWh(), b.mlflow.of(outer).metrics[metricEnergy], 1e-9, name)
		assert.Less(t, b.mlflow.of(inner).metrics[metricEnergy], b.mlflow.of(outer).metrics[metricEnergy])
	}
}

// Tags can put runs into each other, or into themselves: no request waits for another because of that.
func TestPhasesOfRunsInEachOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	one, other := b.create(""), b.create("")
	b.tag(one, tagParent, other)
	b.tag(other, tagParent, one)
	self := b.create("")
	b.tag(self, tagParent, self)
	b.tag(self, tagPhase, "inference")
	assert.True(t, b.proxy.find(self).switching.TryLock(), "it waits for itself")

	around := b.proxy.find(other)
	around.switching.Lock() // as while it is switched
	done := make(chan struct{})
	go func() { defer close(done); b.proxy.setPhase(b.proxy.find(one), meter.Inference) }()
	require.Eventually(t, func() bool {
		b.proxy.mu.Lock()
		defer b.proxy.mu.Unlock()
		return b.proxy.runs[one].infers
	}, 10*time.Second, time.Millisecond)
	assert.True(t, b.proxy.find(one).switching.TryLock(), "and nobody holds what the other may wait for")
	around.switching.Unlock()
	<-done
}
