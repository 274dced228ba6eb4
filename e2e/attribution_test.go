package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These tests are about shares of the CPU, and so not parallel to others.

// The same work takes no more CPU energy beside a busy neighbour than alone: the neighbour takes over a part of the idle
// power, and adds nothing.
func TestABusyNeighbourDoesNotRaiseARunsEnergy(t *testing.T) {
	p := startProxy(t)
	alone := figures(t, of(t, p.run("work", "3")["run"]))["emissions/cpu_energy_kwh"]

	neighbour := exec.Command("sh", "-c", "while :; do :; done")
	require.NoError(t, neighbour.Start())
	defer func() { _ = neighbour.Process.Kill(); _ = neighbour.Wait() }()
	beside := figures(t, of(t, p.run("work", "3")["run"]))["emissions/cpu_energy_kwh"]
	t.Logf("CPU energy alone %.4g kWh, beside a busy neighbour %.4g kWh", alone, beside)
	assert.Less(t, beside, 1.1*alone)
	assert.Greater(t, beside, 0.3*alone)
}

// Two equal runs at once get equal parts, and these, with what no run used, are what the one sampler read.
func TestTwoRunsAtOnceAddUp(t *testing.T) {
	p := startProxy(t)
	barrier := t.TempDir()
	var energy [2]float64
	var wg sync.WaitGroup
	for i := range energy {
		wg.Go(func() {
			id := p.run("together", barrier, fmt.Sprint(i), fmt.Sprint(len(energy)), "3")["run"]
			energy[i] = of(t, id).Metrics["emissions/cpu_energy_kwh"].Value * 3.6e6
		})
	}
	wg.Wait()
	t.Logf("CPU energy of the runs: %.4g J and %.4g J", energy[0], energy[1])
	assert.InEpsilon(t, energy[0], energy[1], 0.25)
	series := p.series() // one answer, since the sensors are read on meanwhile
	for _, component := range []string{"cpu", "ram", "gpu"} {
		owned := func(owner string) float64 {
			return series[`emissions_energy_joules_total{component="`+component+`",owner="`+owner+`"}`]
		}
		read := series[`emissions_sensor_energy_joules_total{component="`+component+`"}`]
		pending := series[`emissions_pending_energy_joules{component="`+component+`"}`]
		assert.InDelta(t, read, owned("runs")+owned("rest")+pending, 1e-9*read, component)
		if component == "cpu" {
			assert.InEpsilon(t, energy[0]+energy[1], owned("runs"), 1e-9, "what was written into the runs is what was theirs")
			assert.Greater(t, owned("rest"), 0.0)
		}
	}
}

// scripted runs a shell script with the proxy's address in $URI and an experiment of its own in $EXPERIMENT.
func (p *proxy) scripted(script string) string {
	p.t.Helper()
	env, err := environment()
	require.NoError(p.t, err)
	_, answer := call(p.t, http.MethodPost, p.url+"/api/2.0/mlflow/experiments/create", `{"name":"`+p.t.Name()+`"}`)
	id := regexp.MustCompile(`"experiment_id":\s*"(\d+)"`).FindStringSubmatch(answer)
	require.NotNil(p.t, id, answer)
	path := filepath.Join(p.t.TempDir(), "script.sh")
	require.NoError(p.t, os.WriteFile(path, []byte(script), 0o755))
	cmd := exec.CommandContext(p.t.Context(), "sh", path)
	cmd.Env = append(os.Environ(), "URI="+p.url+"/api/2.0/mlflow/runs", "EXPERIMENT="+id[1], "PYTHON="+env.Python())
	out, err := cmd.CombinedOutput()
	require.NoError(p.t, err, string(out))
	run := regexp.MustCompile(`RUN=(\w+)`).FindSubmatch(out)
	require.NotNil(p.t, run, string(out))
	return string(run[1])
}

func needCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
}

const curlCreate = `
set -e
RUN=$(curl -sS -H 'Content-Type: application/json' -X POST "$URI/create" -d "{\"experiment_id\":\"$EXPERIMENT\",\"start_time\":1}" | grep -o '"run_id": *"[^"]*"' | head -1 | cut -d'"' -f4)
echo "RUN=$RUN"
`

const curlFinish = `
curl -sS -H 'Content-Type: application/json' -X POST "$URI/log-metric" -d "{\"run_id\":\"$RUN\",\"key\":\"test_acc\",\"value\":50,\"timestamp\":1}"
curl -sS -H 'Content-Type: application/json' -X POST "$URI/update" -d "{\"run_id\":\"$RUN\",\"status\":\"FINISHED\"}"
`

// A run opened by curl in a shell script: curl ends at once, and the script's tree takes its place.
func TestCurlInAShellScript(t *testing.T) {
	needCurl(t)
	p := startProxy(t)
	r := of(t, p.scripted(curlCreate+`"$PYTHON" -c '
import time
end = time.process_time() + 2
while time.process_time() < end: pass
'`+curlFinish))
	m := figures(t, r)
	assert.Equal(t, "FINISHED", r.Status)
	assert.InEpsilon(t, 50/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
	// Two seconds of a thread, of which at least the idle power must have been counted.
	assert.Greater(t, m["emissions/cpu_energy_kwh"]*3.6e6, 2*0.2)
}
