package e2e

import (
	"bufio"
	"encoding/json"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// components are the metrics of which a parent has at least what all that is nested in it has.
var components = []string{"emissions_g", "emissions/energy_kwh", "emissions/cpu_energy_kwh", "emissions/ram_energy_kwh"}

// sweep runs a scenario of sweeps.py in an experiment of this test.
func (p *proxy) sweep(env mlflow.Environment, scenario string, args ...string) map[string]any {
	p.t.Helper()
	return output(p.t, pythonIn(p.t, env, p.url, "sweeps.py", append([]string{p.t.Name(), scenario}, args...)...))
}

// family checks what holds for every run around others: it has at least what they have together, and what the meter
// gave to runs is what it has, no more. It returns the parent's metrics and the children's.
func (p *proxy) family(parent any, children []any) (around map[string]float64, inside []map[string]float64) {
	t := p.t
	t.Helper()
	require.NotEmpty(t, children)
	around = figures(t, of(t, parent))
	sums := map[string]float64{}
	for _, id := range children {
		child := figures(t, of(t, id))
		inside = append(inside, child)
		for _, key := range components {
			sums[key] += child[key]
		}
	}
	for _, key := range components {
		assert.GreaterOrEqual(t, around[key]*(1+1e-9), sums[key], key)
	}
	p.addsUp(around)
	return around, inside
}

// addsUp checks that the runs that are inside no other have what the meter says it gave to runs, and that these and the
// rest are what the sensors read.
func (p *proxy) addsUp(roots ...map[string]float64) {
	t := p.t
	t.Helper()
	series := p.series() // one answer, since the sensors are read on meanwhile
	for _, component := range []string{"cpu", "ram", "gpu"} {
		owned := func(owner string) float64 {
			return series[`emissions_energy_joules_total{component="`+component+`",owner="`+owner+`"}`]
		}
		read := series[`emissions_sensor_energy_joules_total{component="`+component+`"}`]
		pending := series[`emissions_pending_energy_joules{component="`+component+`"}`]
		assert.InDelta(t, read, owned("runs")+owned("rest")+pending, 1e-9*read, component)
		written := 0.0
		for _, r := range roots {
			written += r["emissions/"+component+"_energy_kwh"] * 3.6e6
		}
		assert.InDelta(t, written, owned("runs"), 1e-9*written, "%s: what was written into the runs is what was theirs", component)
	}
}

// A trial's accuracy is the trial's: the study has none, and no ratio. Trials in threads of one process share it.
func TestOptuna(t *testing.T) {
	t.Parallel()
	for _, threads := range []string{"1", "2"} {
		t.Run(threads, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t)
			out := p.sweep(sdkEnvironment(t), "optuna", threads)
			parent, trials := p.family(out["run"], out["children"].([]any))
			assert.Len(t, trials, 4)
			assert.NotContains(t, parent, "accuracy_per_emission", "its trials' accuracies are not its own")
			for _, trial := range trials {
				assert.InEpsilon(t, 100*trial["test_accuracy"]/trial["emissions_g"], trial["accuracy_per_emission"], 1e-9)
			}
		})
	}
}

// Autologging makes a search's runs when the search is over, as if they had run since it began: nothing of them was
// metered, and their moments of existence are no figures of theirs. The search itself has all of it.
func TestGridSearch(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.sweep(mustEnvironment(t), "grid_search")
	parent := figures(t, of(t, out["run"]))
	p.addsUp(parent)
	assert.Len(t, out["children"], 3)
	for _, id := range out["children"].([]any) {
		child := of(t, id)
		assert.Equal(t, "FINISHED", child.Status)
		assert.Contains(t, child.Metrics, "mean_test_score")
		assert.Contains(t, child.Tags["emissions.status"], "unmeasured: it was recorded when it was over")
		for key := range child.Metrics {
			assert.NotContains(t, key, "emission")
		}
	}
}

// A fold's run is opened by a process of joblib's; the accuracy of the whole is the parent's alone.
func TestCrossValidation(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.sweep(mustEnvironment(t), "cross_validation")
	assert.Greater(t, out["processes"], 1.0)
	parent, folds := p.family(out["run"], out["children"].([]any))
	assert.InEpsilon(t, 50/parent["emissions_g"], parent["accuracy_per_emission"], 1e-9)
	for _, fold := range folds {
		assert.NotContains(t, fold, "accuracy_per_emission", "the parent's accuracy is not its folds'")
		assert.Greater(t, fold["emissions/cpu_energy_kwh"], 0.0)
	}
}

// Workers that the driver starts itself are below its process and nested in its run: they count once.
func TestFanOut(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.sweep(mustEnvironment(t), "fan_out")
	parent, workers := p.family(out["run"], out["children"].([]any))
	assert.NotContains(t, parent, "accuracy_per_emission")
	for _, worker := range workers {
		assert.InEpsilon(t, 70/worker["emissions_g"], worker["accuracy_per_emission"], 1e-9)
	}
}

// Executors are no children of the driver's process: they are its run's because their runs are nested in it.
func TestFanOutToProcessesOfOthers(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	driver := p.python("sweeps.py", t.Name(), "driver")
	in, err := driver.StdinPipe()
	require.NoError(t, err)
	out, err := driver.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, driver.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var opened struct{ Run string }
	require.NoError(t, json.Unmarshal([]byte(line), &opened))

	children := make([]any, 2)
	var workers sync.WaitGroup
	for i := range children {
		workers.Go(func() { children[i] = p.sweep(mustEnvironment(t), "worker", opened.Run)["run"] })
	}
	workers.Wait()
	require.NoError(t, in.Close())
	require.NoError(t, driver.Wait())

	parent, executors := p.family(opened.Run, children)
	sum := 0.0
	for _, e := range executors {
		sum += e["emissions/cpu_energy_kwh"]
	}
	// The driver waits meanwhile: but for its start and end, what it has is its executors'.
	assert.Greater(t, sum, 0.5*parent["emissions/cpu_energy_kwh"])
	assert.NotContains(t, parent, "accuracy_per_emission")
}

func mustEnvironment(t *testing.T) mlflow.Environment {
	t.Helper()
	env, err := environment()
	require.NoError(t, err)
	return env
}
