package e2e

import (
	"encoding/json"
	"net/http"
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

// newExperiment makes an experiment for this test and returns its id.
func newExperiment(t *testing.T) string {
	t.Helper()
	_, upstream, _ := setup(t)
	body, err := json.Marshal(map[string]string{"name": t.Name()})
	require.NoError(t, err)
	code, answer := call(t, http.MethodPost, upstream.String()+"/api/2.0/mlflow/experiments/create", string(body))
	require.Equal(t, http.StatusOK, code, answer)
	var made struct {
		ID string `json:"experiment_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &made), answer)
	return made.ID
}

// onlyRun returns the only run of an experiment.
func onlyRun(t *testing.T, experiment string) mlflow.Run {
	t.Helper()
	_, upstream, _ := setup(t)
	code, answer := call(t, http.MethodPost, upstream.String()+"/api/2.0/mlflow/runs/search", `{"experiment_ids":["`+experiment+`"]}`)
	require.Equal(t, http.StatusOK, code, answer)
	var found struct {
		Runs []struct {
			Info struct {
				ID string `json:"run_id"`
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &found), answer)
	require.Len(t, found.Runs, 1)
	return of(t, found.Runs[0].Info.ID)
}

// example runs a command in a copy of a folder of examples/, as a user would, and returns what it printed.
func example(t *testing.T, folder string, env []string, command ...string) string {
	t.Helper()
	copied := t.TempDir()
	require.NoError(t, os.CopyFS(copied, os.DirFS(filepath.Join("..", "examples", folder))))
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = copied
	cmd.Env = append(append(os.Environ(), "MLFLOW_DISABLE_TELEMETRY=true", "GIT_PYTHON_REFRESH=quiet"), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", out, &stderr)
	return string(out)
}

// An example that does not work as it stands is the first thing a user meets.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	base := func(t *testing.T) string {
		env, err := environment()
		require.NoError(t, err)
		return env.Python()
	}
	frameworks := func(t *testing.T) string { return flavourEnvironment(t, "").Python() }
	torch := func(t *testing.T) string {
		if !slices.ContainsFunc(strings.Split(*flavours, ","), func(f string) bool { return f == "torch" || f == "all" }) {
			t.Skip("PyTorch is tested with -flavours=torch, which installs it")
		}
		return flavourEnvironment(t, "torch").Python()
	}
	installed := func(program string) func(*testing.T) string {
		return func(t *testing.T) string {
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skip("no " + program)
			}
			return path
		}
	}
	for _, c := range []struct {
		name       string
		program    func(*testing.T) string
		args       string
		databricks bool
		inference  bool // has an inference phase
		again      bool // what it trains with is trained with by other tests, too
	}{
		{name: "curl", program: installed("curl"), args: "train_curl.sh"},
		{name: "scikit-learn", program: base, args: "train_sklearn.py", inference: true},
		{name: "Keras", program: frameworks, args: "train_keras.py", again: true},
		{name: "XGBoost", program: frameworks, args: "train_xgboost.py", again: true},
		{name: "PyTorch", program: torch, args: "train_torch.py"},
		{name: "Databricks", program: base, args: "train_sklearn.py", databricks: true, inference: true, again: true},
		{name: "Java", program: installed("mvn"), args: "-q -B -f java compile exec:java", again: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.again && os.Getenv("E2E_EXAMPLES") == "" {
				t.Skip("its client is tested elsewhere: E2E_EXAMPLES=1")
			}
			program := c.program(t)
			if c.name == "curl" {
				program = "sh" // which calls it
			}
			p := startProxy(t)
			experiment := newExperiment(t)
			env := []string{"MLFLOW_TRACKING_URI=" + p.url, "MLFLOW_EXPERIMENT_ID=" + experiment}
			if c.databricks {
				env = append(env, "MLFLOW_TRACKING_URI=databricks", "DATABRICKS_HOST="+p.url, "DATABRICKS_TOKEN=dapi", "HOME="+t.TempDir())
			}
			printed := example(t, "quickstart", env, append([]string{program}, strings.Fields(c.args)...)...)
			t.Log("\n" + printed)
			r := onlyRun(t, experiment)
			assert.Equal(t, "FINISHED", r.Status)
			m := figures(t, r)
			assert.Equal(t, "test_accuracy", r.Tags["emissions.accuracy_key"])
			assert.Greater(t, m["test_accuracy"], 0.8, "it learnt something")
			for _, key := range []string{"emissions_g", "accuracy_per_emission"} {
				assert.Contains(t, m, key)
				assert.Regexp(t, key+` +[0-9.e+-]+\n`, printed) // Maven colours what is around it
			}
			if c.inference {
				assert.Contains(t, m, "emission_per_10_inferences")
			}
		})
	}
}

// The benchmark's pictures, and the smallest of its runs. It trains a convolutional network, which takes a minute or two.
func TestImageModels(t *testing.T) {
	if os.Getenv("E2E_IMAGE_MODELS") == "" {
		t.Skip("it trains for a minute or two: E2E_IMAGE_MODELS=1")
	}
	t.Parallel()
	python := flavourEnvironment(t, "").Python()
	images := filepath.Join(t.TempDir(), "images")
	example(t, "image-models", nil, python, "make_images.py", images)
	files, err := filepath.Glob(filepath.Join(images, "*", "*.jpg"))
	require.NoError(t, err)
	require.Len(t, files, 2527)

	p := startProxy(t)
	experiment := newExperiment(t)
	example(t, "image-models", []string{"MLFLOW_TRACKING_URI=" + p.url}, python, "train.py", "--images", images,
		"--models", "MobileNetV2", "--scale", "0.005", "--epochs", "2", "--size", "32", "--experiment", t.Name())
	r := onlyRun(t, experiment)
	assert.Equal(t, "FINISHED", r.Status)
	assert.Equal(t, "MobileNetV2", r.Name)
	m := figures(t, r)
	assert.Contains(t, m, "accuracy_per_emission")
	assert.Equal(t, "64", r.Tags["emissions.inferences"], "50 predictions, in whole batches")
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/64, m["emission_per_10_inferences"], 1e-9)
	assert.Equal(t, "2265670", r.Params["parameter_count"])
}
