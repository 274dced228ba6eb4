package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

// sdkEnvironment has mlflow-emissions-sdk beside the pinned MLflow, and what it imports, but for PyTorch: see
// testdata/sdk/standin.
func sdkEnvironment(t *testing.T) mlflow.Environment {
	t.Helper()
	return flavourEnvironment(t, "")
}

// sdkScript prepares a script of testdata/sdk, in an experiment of this test.
func (p *proxy) sdkScript(script string, args ...string) *exec.Cmd {
	p.t.Helper()
	return p.sdkFile(filepath.Join("testdata", "sdk", script), append([]string{p.t.Name()}, args...)...)
}

// sdkFile prepares a script. CodeCarbon asks who is where on the network, which refuses at once, takes the proxy's
// intensity, and writes no file.
func (p *proxy) sdkFile(path string, args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := pythonFile(p.t, sdkEnvironment(p.t), p.url, path, args...)
	standIn, err := filepath.Abs(filepath.Join("testdata", "sdk", "standin")) // of PyTorch
	require.NoError(p.t, err)
	cmd.Env = append(cmd.Env, "PYTHONPATH="+standIn)
	const nowhere = "http://127.0.0.1:9"
	cmd.Env = append(cmd.Env, "HTTP_PROXY="+nowhere, "HTTPS_PROXY="+nowhere, "http_proxy="+nowhere, "https_proxy="+nowhere,
		"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "HOME="+p.t.TempDir(), "KERAS_BACKEND=jax", "PYTHONDONTWRITEBYTECODE=1",
		fmt.Sprintf("CODECARBON_FORCE_CARBON_INTENSITY_G_CO2E_KWH=%g", intensity), "CODECARBON_SAVE_TO_FILE=false", "CODECARBON_LOG_LEVEL=error")
	return cmd
}

// The SDK's own minimal example: the run is created before it is started, ended, and gets the SDK's metric then.
func TestSDKMinimalExample(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := output(t, p.sdkScript("linear_regression.py"))
	assert.InDelta(t, 16, out["prediction"], 1e-9)
	r := of(t, out["run"])
	m := figures(t, r)
	assert.Equal(t, "FINISHED", r.Status)
	assert.Positive(t, m["emissions"], "the SDK's")
	assert.Len(t, history(t, r.ID, "emissions"), 1)
	assert.Contains(t, m, "training_score", "autologging's")
	assert.NotContains(t, m, "accuracy_per_emission", "a regression has no accuracy")
	assert.NotContains(t, r.Tags, "emissions.client_metrics", "its names are not ours")
}

// debianTorch is a folder with a link to the PyTorch that Debian has, if it is for this Python.
func debianTorch(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/usr/lib/python3/dist-packages/torch", filepath.Join(dir, "torch")))
	cmd := exec.CommandContext(t.Context(), sdkEnvironment(t).Python(), "-c", "import torch; torch.device")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir)
	if cmd.Run() != nil {
		t.Skip("no PyTorch (Debian's python3-torch) for this Python")
	}
	return dir
}

// The accuracy of a classifier comes when its run has ended, and completes the ratio; where autologging logged a training
// accuracy before, it takes its place. scikit-learn's flavour is that of the other tests.
func TestSDKImageClassifier(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{"keras", "pytorch"} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t)
			cmd := p.sdkScript("digits.py", flavor, "predictions")
			if flavor == "pytorch" {
				if *flavours != "all" && !slices.Contains(strings.Split(*flavours, ","), "torch") {
					t.Skip("PyTorch is tested with -flavours=torch")
				}
				cmd.Env = append(cmd.Env, "PYTHONPATH="+debianTorch(t))
			}
			out := output(t, cmd)
			assert.Greater(t, out["accuracy"], 0.7)
			eventually(t, "the ratio is of the test's accuracy", func() bool {
				return of(t, out["run"]).Tags["emissions.accuracy_key"] == "accuracy_on_test_data"
			})
			r := of(t, out["run"])
			m := figures(t, r)
			assert.InEpsilon(t, 100*out["accuracy"].(float64)/m["emissions_g"], m["accuracy_per_emission"], 1e-9)
			assert.Positive(t, m["emissions"])
			assert.Positive(t, m["emissions_per_10_predictions"])
			assert.NotContains(t, m, "emission_per_10_inferences", "nobody said what was a prediction")
			assert.Equal(t, out["ended"].(map[string]any)["emissions_g"], m["emissions_g"], "what comes after the end is not the run's")
		})
	}
}

// Predictions after the end are metered when the client says so, and change nothing of the training. The SDK's names stay
// the SDK's, even if we would write them.
func TestSDKPredictionsAfterTheEnd(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "--sdk-names")
	out := output(t, p.sdkScript("digits.py", "sklearn", "predictions", "phase"))
	eventually(t, "the figure of ten predictions", func() bool {
		return of(t, out["run"]).Metrics["emission_per_10_inferences"].Value > 0
	})
	r := of(t, out["run"])
	m := figures(t, r)
	ended := out["ended"].(map[string]any)
	assert.Equal(t, ended["emissions_g"], m["emissions/training_g"])
	assert.InEpsilon(t, m["emissions/training_g"]+m["emissions/inference_g"], m["emissions_g"], 1e-9)
	assert.Greater(t, m["emissions/inference_g"], 0.2*intensity/3.6e6, "a second of a thread takes 0.2 J at the least")
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/out["count"].(float64), m["emission_per_10_inferences"], 1e-9)
	assert.InEpsilon(t, 100*out["accuracy"].(float64)/m["emissions/training_g"], m["accuracy_per_emission"], 1e-9)
	// With --sdk-names both write these two; the SDK's come later, and before ours. They are the client's, and stay.
	assert.Equal(t, "emissions, emissions_per_10_predictions", r.Tags["emissions.client_metrics"])
	assert.Equal(t, out["emissions"], m["emissions"])
	assert.Equal(t, []float64{ended["emissions_g"].(float64), m["emissions"]}, history(t, r.ID, "emissions"))
	assert.Equal(t, []float64{m["emissions_per_10_predictions"]}, history(t, r.ID, "emissions_per_10_predictions"))
}
