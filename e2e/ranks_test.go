package e2e

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// These tests are about shares of the CPU, and so not parallel to others.

// ranks trains with a launcher's two ranks, of which so many work, and returns the run.
func (p *proxy) ranks(busy int, launcher ...string) mlflow.Run {
	p.t.Helper()
	cmd := p.python("ranks.py", p.t.Name(), p.t.TempDir(), fmt.Sprint(busy))
	if len(launcher) > 0 {
		cmd.Args = append(launcher, cmd.Args...)
		cmd.Path = launcher[0]
		// It refuses to run as root, and to start more ranks than there are cores, unless told.
		cmd.Env = append(cmd.Env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
	}
	return of(p.t, output(p.t, cmd)["run"])
}

// twiceOne checks that the second rank counts, though it never talks to MLflow. On a full machine a second of CPU time
// costs the same, whatever else goes on and however much of the machine's power is idle power.
func (p *proxy) twiceOne(launcher ...string) {
	t := p.t
	t.Helper()
	fill(t)
	one, two := p.ranks(1, launcher...), p.ranks(2, launcher...)
	for _, r := range []mlflow.Run{one, two} {
		assert.Equal(t, "launcher", r.Tags["emissions.unit"])
	}
	a, b := figures(t, one)["emissions/cpu_energy_kwh"], figures(t, two)["emissions/cpu_energy_kwh"]
	t.Logf("CPU energy with one busy rank %.4g J, with two %.4g J", a*3.6e6, b*3.6e6)
	assert.InDelta(t, 2, b/a, 0.25)
}

// fill keeps every CPU busy until the test ends, with what gives way to all else.
func fill(t *testing.T) {
	t.Helper()
	for range runtime.NumCPU() {
		busy := exec.Command("nice", "-n", "19", "sh", "-c", "while :; do :; done")
		require.NoError(t, busy.Start())
		t.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	}
}

func TestRanksOfALauncher(t *testing.T) {
	startProxy(t).twiceOne()
}

func TestRanksOfMpirun(t *testing.T) {
	mpirun, err := exec.LookPath("mpirun")
	if err != nil {
		t.Skip("no mpirun")
	}
	startProxy(t).twiceOne(mpirun, "--oversubscribe", "--bind-to", "none", "-n", "2")
}

func TestRanksOfTorchrun(t *testing.T) {
	torchrun, err := exec.LookPath("torchrun")
	if err != nil {
		t.Skip("no torchrun")
	}
	// Debian's torchrun 1.13 cannot but redirect something where Python is 3.11: hence -t and -r. The ranks need MLflow, and so run with its environment's interpreter; torchrun has the system's.
	startProxy(t).twiceOne(torchrun, "--nproc_per_node", "2", "--no_python", "-t", "1", "-r", "1")
}
