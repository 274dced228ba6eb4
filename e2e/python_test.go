package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// figures checks what holds for every measured run, and returns its metrics.
func figures(t *testing.T, r mlflow.Run) map[string]float64 {
	t.Helper()
	m := map[string]float64{}
	for k, v := range r.Metrics {
		m[k] = v.Value
	}
	require.Greater(t, m["emissions_g"], 0.0)
	assert.InEpsilon(t, m["emissions/energy_kwh"]*intensity, m["emissions_g"], 1e-9)
	assert.InEpsilon(t, m["emissions/energy_kwh"], m["emissions/cpu_energy_kwh"]+m["emissions/ram_energy_kwh"]+m["emissions/gpu_energy_kwh"], 1e-9)
	assert.Greater(t, m["emissions/duration_s"], 0.0)
	assert.Less(t, m["emissions/low_g"], m["emissions_g"])
	assert.Greater(t, m["emissions/high_g"], m["emissions_g"])
	for _, tag := range []string{"status", "scope", "method.cpu", "method.gpu", "method.ram", "intensity", "intensity_source", "location", "pue", "host", "version"} {
		assert.NotEmpty(t, r.Tags["emissions."+tag], tag)
	}
	assert.Equal(t, "measured", r.Tags["emissions.status"])
	assert.Equal(t, "process", r.Tags["emissions.scope"])
	return m
}

func TestPlain(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("plain")["run"])
	assert.Equal(t, "FINISHED", r.Status)
	m := figures(t, r)
	assert.InEpsilon(t, 80/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
	assert.Equal(t, "test_accuracy", r.Tags["emissions.accuracy_key"])
	assert.NotContains(t, m, "emission_per_10_inferences", "no predictions, no figure")
	assert.NotContains(t, r.Tags, "emissions.client_metrics")
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("evaluate")["run"])
	m := figures(t, r)
	assert.Equal(t, "500", r.Tags["emissions.inferences"])
	assert.Equal(t, "mlflow.models.evaluate", r.Tags["emissions.inferences_source"])
	assert.InEpsilon(t, m["emissions_g"], m["emissions/training_g"]+m["emissions/inference_g"], 1e-9)
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/500, m["emission_per_10_inferences"], 1e-9)
	assert.InEpsilon(t, 100/m["emissions/training_g"], m["accuracy_per_emission"], 1e-9, "the predictions are all right")
	assert.Greater(t, m["emissions/inference_g"], m["emissions/training_g"]/10)
}

func TestAutolog(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("autolog")["run"])
	m := figures(t, r)
	assert.Greater(t, m["accuracy_per_emission"], 0.0)
	assert.Equal(t, "training_accuracy_score", r.Tags["emissions.accuracy_key"])
	assert.NotContains(t, m, "emissions/inference_g", "the training dataset is no evaluation")
}

func TestNested(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.run("nested")
	parent := figures(t, of(t, out["run"]))
	sum := 0.0
	for _, id := range out["children"].([]any) {
		sum += figures(t, of(t, id))["emissions/cpu_energy_kwh"]
	}
	assert.Greater(t, parent["emissions/cpu_energy_kwh"], sum)
}

func TestFailedAndKilled(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	for scenario, status := range map[string]string{"fails": "FAILED", "killed": "KILLED"} {
		r := of(t, p.run(scenario)["run"])
		assert.Equal(t, status, r.Status)
		m := figures(t, r)
		assert.NotContains(t, m, "accuracy_per_emission", "no accuracy, no ratio")
		assert.NotContains(t, r.Tags, "emissions.accuracy_key")
	}
}

func TestResumed(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.run("resumed")
	r := of(t, out["run"])
	m := figures(t, r)
	first := out["first"].(map[string]any)
	for _, key := range []string{"emissions_g", "emissions/cpu_energy_kwh"} {
		assert.Greater(t, m[key], 1.2*first[key].(float64), key)
	}
	assert.Greater(t, m["emissions/duration_s"], 0.4+first["emissions/duration_s"].(float64), "half a second of CPU time takes no less")
	assert.InEpsilon(t, 50/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
	assert.NotContains(t, r.Tags, "emissions.client_metrics")
}

// Whose process was killed is RUNNING for the server, and so for the proxy: who takes the run up is metered from then on.
func TestAnotherProcessTakesARunUp(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	id := p.run("abandoned")["run"]
	p.run("takes_up", id.(string))
	assert.Greater(t, figures(t, of(t, id))["emissions/cpu_energy_kwh"]*3.6e6, 2.0, "J, for two seconds of a CPU")
}

func TestRenamedGoesOn(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "0")
	out := p.run("renamed")
	assert.Equal(t, "RUNNING", out["status"])
	assert.Empty(t, out["metrics"])
	r := of(t, out["run"])
	assert.Equal(t, "another name", r.Name)
	figures(t, r)
}

func TestAsyncLogging(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("asynchronous")["run"])
	m := figures(t, r)
	assert.InEpsilon(t, 90/m["emissions_g"], m["accuracy_per_emission"], 1e-9, "what was logged asynchronously was there in time")
	assert.Len(t, history(t, r.ID, "loss"), 50)
}

func TestOwnMetricIsKept(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("own")["run"])
	assert.Equal(t, 42.0, r.Metrics["emissions_g"].Value)
	assert.Equal(t, "emissions_g", r.Tags["emissions.client_metrics"])
	assert.Greater(t, r.Metrics["emissions/energy_kwh"].Value, 0.0)
	assert.Len(t, history(t, r.ID, "emissions_g"), 1)
}

func TestSkipped(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("skip")["run"])
	assert.Empty(t, r.Metrics)
	assert.NotContains(t, r.Tags, "emissions.status")
}

func TestUsersTags(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.run("tags")["run"])
	m := figures(t, r)
	assert.InEpsilon(t, 60/m["emissions/training_g"], m["accuracy_per_emission"], 1e-9)
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/250, m["emission_per_10_inferences"], 1e-9)
	assert.Equal(t, "tag", r.Tags["emissions.inferences_source"])
	assert.Greater(t, m["emissions/inference_g"], m["emissions/training_g"], "it works three times as long in the one as in the other")
}

func TestLateAccuracy(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	id := p.run("late")["run"]
	eventually(t, "the ratio is completed", func() bool { return of(t, id).Metrics["accuracy_per_emission"].Value > 0 })
	m := figures(t, of(t, id))
	assert.InEpsilon(t, 50/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
}

// A launcher creates the run, another process trains, and only logs metrics to it: it joins.
func TestAnotherProcessTrains(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	launcher := p.python("scenarios.py", t.Name(), "create")
	in, err := launcher.StdinPipe()
	require.NoError(t, err)
	out, err := launcher.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, launcher.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var created struct{ Run string }
	require.NoError(t, json.Unmarshal([]byte(line), &created))
	p.run("worker", created.Run)
	require.NoError(t, in.Close())
	require.NoError(t, launcher.Wait())
	m := figures(t, of(t, created.Run))
	// Two seconds of CPU time at no less than idle power would be 2 x 0.2 W; a launcher that waits uses next to nothing.
	assert.Greater(t, m["emissions/cpu_energy_kwh"]*3.6e6, 2*0.2)
	assert.InEpsilon(t, 75/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
}

// Processes that a run's own process starts, and that log for themselves, are the run's, and nobody's twice.
func TestWorkersThatLogForThemselves(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.run("workers")
	assert.Positive(t, out["workers"])
	m := figures(t, of(t, out["run"]))
	assert.Contains(t, m, "loss-0")
	assert.Contains(t, m, "loss-1")
	// Two seconds of CPU time in the workers, at no less than idle power; the parent only waits.
	assert.Greater(t, m["emissions/cpu_energy_kwh"]*3.6e6, 2*0.2)
	series := p.series()
	assert.InEpsilon(t, series[`emissions_energy_joules_total{component="cpu",owner="runs"}`], m["emissions/cpu_energy_kwh"]*3.6e6, 1e-9)
}

// --unit cgroup: what runs in the client's control group is the run's.
func TestCgroupIsTheUnit(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/cgroup"); err != nil {
		t.Skip("no control groups on this system")
	}
	p := startProxy(t, "--unit", "cgroup")
	r := of(t, p.run("plain")["run"])
	figures(t, r)
	assert.Equal(t, "cgroup", r.Tags["emissions.unit"])
}

func TestLiveCurve(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--log-interval", "1s")
	id, finish := p.hold()
	eventually(t, "a curve while the run goes on", func() bool { return len(history(t, id, "emissions_g")) >= 3 })
	assert.Equal(t, "RUNNING", of(t, id).Status)
	finish()
	values := history(t, id, "emissions_g")
	for i := 1; i < len(values); i++ {
		assert.GreaterOrEqual(t, values[i], values[i-1])
	}
	figures(t, of(t, id))
}

// hold starts a run that goes on until finish is called.
func (p *proxy) hold() (id string, finish func()) {
	p.t.Helper()
	stop := filepath.Join(p.t.TempDir(), "stop")
	cmd := p.python("scenarios.py", p.t.Name(), "hold", stop)
	out, err := cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, cmd.Start())
	reader := bufio.NewReader(out)
	line, err := reader.ReadString('\n')
	require.NoError(p.t, err)
	var held struct{ Run string }
	require.NoError(p.t, json.Unmarshal([]byte(line), &held))
	return held.Run, func() {
		require.NoError(p.t, os.WriteFile(stop, nil, 0o644))
		_, _ = reader.WriteTo(new(strings.Builder))
		require.NoError(p.t, cmd.Wait())
	}
}

func TestArtifactOf300MBWithFlatMemory(t *testing.T) {
	p := startProxy(t)
	path := filepath.Join(t.TempDir(), "large.bin")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(300<<20))
	require.NoError(t, f.Close())
	out := p.run("artifact", path)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Skip("no /proc to read the proxy's memory from")
	}
	var peak int
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			peak, err = strconv.Atoi(strings.Fields(rest)[0])
			require.NoError(t, err)
		}
	}
	assert.NotZero(t, peak)
	assert.Less(t, peak, 100<<10, "kB at the most")
	res, err := http.Get(p.url + "/get-artifact?run_id=" + out["run"].(string) + "&path=large.bin")
	require.NoError(t, err)
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	assert.EqualValues(t, 300<<20, n)
}
