package e2e

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// Two notebooks of one server, with real kernels: what the one does is not the other's.
func TestNotebooks(t *testing.T) {
	p := startProxy(t)
	cache, err := mlflow.CacheDir()
	require.NoError(t, err)
	env, err := mlflow.SetupOnly(t.Context(), cache, []string{"mlflow-skinny==3.17.2", "ipykernel==7.4.0", "jupyter-client==8.10.0"}, os.Stderr)
	require.NoError(t, err)
	cmd := pythonIn(t, env, p.url, "jupyter_server.py", t.Name())
	// The kernel's description lies in the environment.
	cmd.Env = append(cmd.Env, "PATH="+env.Dir+"/bin:"+os.Getenv("PATH"), "JUPYTER_PLATFORM_DIRS=1")
	runs := output(t, cmd)["runs"].([]any)
	worked, idle := of(t, runs[0]), of(t, runs[1])
	a, b := figures(t, worked)["emissions/cpu_energy_kwh"], figures(t, idle)["emissions/cpu_energy_kwh"]
	t.Logf("CPU energy of the notebook that worked %.3g J, of the other %.3g J", a*3.6e6, b*3.6e6)
	assert.Greater(t, a, 4*b)
	assert.Equal(t, "process", worked.Tags["emissions.unit"])
}
