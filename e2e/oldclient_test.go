package e2e

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// An old client, with packages of its time.
func TestMLflow29(t *testing.T) {
	if os.Getenv("E2E_MLFLOW29") == "" {
		t.Skip("the client of 2.9.2 is tested with E2E_MLFLOW29=1, which installs it")
	}
	cache, err := mlflow.CacheDir()
	require.NoError(t, err)
	env, err := mlflow.SetupOnly(t.Context(), cache, []string{"mlflow==2.9.2", "setuptools<81", "numpy<2", "pandas<2.2", "scikit-learn<1.4"}, os.Stderr)
	require.NoError(t, err)
	p := startProxy(t)
	for _, scenario := range []string{"plain", "nested", "fails", "resumed", "evaluate"} {
		r := of(t, output(t, pythonIn(t, env, p.url, "scenarios.py", t.Name(), scenario))["run"])
		m := figures(t, r)
		switch scenario {
		case "plain":
			assert.InEpsilon(t, 80/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
		case "evaluate":
			assert.InEpsilon(t, 10*m["emissions/inference_g"]/500, m["emission_per_10_inferences"], 1e-9)
		}
	}
	inferred(t, output(t, pythonIn(t, env, p.url, "inference.py", t.Name(), "evaluations"))["run"], 100, "mlflow.models.evaluate")
	notInferred(t, output(t, pythonIn(t, env, p.url, "inference.py", t.Name(), "predicted_before"))["run"])
}
