package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"mlflow-emissions-proxy/mlflow"
)

var flavours = flag.String("flavours", "", "`environments` of heavy frameworks to test too, separated by commas: tensorflow (downloads 0.4 GB, 1.5 GB on disk), torch (PyTorch with CUDA's libraries, Lightning, Transformers; downloads 3 GB, 5.6 GB on disk), or all")

// environments are the packages of the flavours' tests, beside MLflow and scikit-learn. xgboost-cpu is XGBoost without
// CUDA's libraries. Those of CI have no name; mlflow-emissions-sdk and what its tests need is among them, since it needs most
// of them, too. Its last release names none of the 171 packages that it was developed with in what pip reads, so that it
// does not take MLflow back to 2.4.
var environments = map[string][]string{
	"": {"xgboost-cpu==3.2.0", "lightgbm==4.7.0", "keras==3.15.1", "jax==0.10.2",
		"mlflow-emissions-sdk==0.16.4", "codecarbon==3.3.2", "optuna==5.0.0"},
	"tensorflow": {"tensorflow-cpu==2.21.0", "keras==3.15.1"},
	"torch":      {"torch==2.14.0", "lightning==2.6.6", "transformers==5.17.0", "accelerate==1.15.0"},
}

// flavour is a script of testdata/flavours, and what is to come of each of its runs.
type flavour struct {
	name, script string
	environment  string
	env          []string
	runs         []training
}

// training is one run: all metric keys that the client sends, and which of them is the accuracy.
type training struct {
	name string
	keys string
	want string // "" for none
	late bool   // the accuracy comes after the run's end
}

const (
	sklearnClassifier = "training_accuracy_score training_f1_score training_log_loss training_precision_score training_recall_score training_roc_auc training_score"
	kerasAccuracy     = "accuracy loss val_accuracy val_loss validation_accuracy validation_loss"
	kerasMetrics      = "loss sparse_categorical_accuracy sparse_top_k_categorical_accuracy val_loss val_sparse_categorical_accuracy val_sparse_top_k_categorical_accuracy validation_loss validation_sparse_categorical_accuracy validation_sparse_top_k_categorical_accuracy"
	trainerKeys       = "epoch eval_accuracy eval_loss eval_runtime eval_samples_per_second eval_steps_per_second grad_norm learning_rate loss total_flos train_loss train_runtime train_samples_per_second train_steps_per_second"
	kerasBinary       = "binary_accuracy loss test_accuracy val_binary_accuracy val_loss validation_binary_accuracy validation_loss"
)

var kerasRuns = []training{
	{name: "accuracy", keys: kerasAccuracy, want: "val_accuracy"},
	{name: "metrics", keys: kerasMetrics, want: "val_sparse_categorical_accuracy"},
	{name: "binary", keys: kerasBinary, want: "test_accuracy"},
}

var allFlavours = []flavour{
	{"scikit-learn", "train_sklearn.py", "", nil, []training{
		{name: "score", keys: sklearnClassifier + " LogisticRegression_score_X_test", want: "LogisticRegression_score_X_test"},
		{name: "metric", keys: sklearnClassifier + " accuracy_score_X_test", want: "accuracy_score_X_test"},
		{name: "managed", keys: sklearnClassifier + " LogisticRegression_score_X_test", want: "LogisticRegression_score_X_test", late: true},
		{name: "own", keys: sklearnClassifier + " test_accuracy", want: "test_accuracy"},
		{name: "search", keys: sklearnClassifier + " best_cv_score GridSearchCV_score_X_test", want: "training_accuracy_score"},
		{name: "regression", keys: "LinearRegression_score_X_test training_mean_absolute_error training_mean_squared_error training_r2_score training_root_mean_squared_error training_score", want: ""},
	}},
	{"XGBoost", "train_xgboost.py", "", nil, []training{
		{name: "multiclass", keys: "best_iteration stopped_iteration validation_0-merror validation_0-mlogloss validation_1-merror validation_1-mlogloss", want: "validation_1-merror"},
		{name: "binary", keys: "test-error test-error_at_0.7 test-logloss train-error train-error_at_0.7 train-logloss", want: "test-error"},
		{name: "regression", keys: "train-error train-rmse validation-error validation-rmse", want: ""},
	}},
	{"LightGBM", "train_lightgbm.py", "", nil, []training{
		{name: "multiclass", keys: "training-multi_error training-multi_logloss valid_1-multi_error valid_1-multi_logloss", want: "valid_1-multi_error"},
		{name: "binary", keys: "training-binary_error training-binary_logloss valid_1-binary_error valid_1-binary_logloss", want: "valid_1-binary_error"},
	}},
	{"Keras 3 on JAX", "train_keras.py", "", []string{"KERAS_BACKEND=jax"}, kerasRuns},
	{"Keras 3 on TensorFlow", "train_keras.py", "tensorflow", []string{"KERAS_BACKEND=tensorflow"}, kerasRuns},
	{"PyTorch", "train_torch.py", "torch", nil, []training{
		{name: "loop", keys: "test_acc train_acc train_loss val_acc", want: "test_acc"},
		{name: "with_lightning", keys: "test_acc test_loss train_acc train_loss val_acc val_loss", want: "test_acc"},
		{name: "with_collection", keys: "test_MulticlassAccuracy test_loss train_MulticlassAccuracy train_loss val_MulticlassAccuracy val_loss", want: "test_MulticlassAccuracy"},
	}},
	{"Transformers", "train_transformers.py", "torch", nil, []training{
		{name: "evaluation", keys: trainerKeys, want: "eval_accuracy"},
		{name: "prediction", keys: trainerKeys + " test_accuracy test_loss test_runtime test_samples_per_second test_steps_per_second", want: "test_accuracy"},
	}},
}

// flavourEnvironment makes an environment of the flavours' tests, once.
func flavourEnvironment(t *testing.T, name string) mlflow.Environment {
	t.Helper()
	base, err := environment()
	require.NoError(t, err)
	version, err := exec.CommandContext(t.Context(), base.Python(), "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3] if sys.version_info < (3, 11) else '')").Output()
	require.NoError(t, err)
	if old := strings.TrimSpace(string(version)); old != "" {
		t.Skipf("scikit-learn 1.9.1, Keras 3.15.1 and JAX 0.10.2, whose keys are checked, need Python 3.11 or later, which EMISSIONS_PYTHON may name; this is %s", old)
	}
	cache, err := mlflow.CacheDir()
	require.NoError(t, err)
	pins, err := os.ReadFile(filepath.Join("testdata", "flavours", "constraints.txt"))
	require.NoError(t, err)
	env, err := mlflow.SetupOver(t.Context(), cache, base, environments[name], string(pins), os.Stderr)
	require.NoError(t, err)
	return env
}

// What autolog calls a model's accuracy differs from framework to framework, and from version to version: a key that
// is not known any more would leave runs without their ratio, or with that of another metric.
func TestFlavours(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	logs := map[string]string{}
	t.Cleanup(func() { writeFlavourLogs(t, logs) })
	for _, f := range allFlavours {
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			if f.environment != "" && *flavours != "all" && !slices.Contains(strings.Split(*flavours, ","), f.environment) {
				t.Skipf("%s is tested with -flavours=%s, which installs it", f.name, f.environment)
			}
			p := startProxy(t)
			env := flavourEnvironment(t, f.environment)
			var names []string
			for _, r := range f.runs {
				names = append(names, r.name)
			}
			cmd := pythonIn(t, env, p.url, filepath.Join("flavours", f.script), names...)
			cmd.Env = append(append(cmd.Env, "MLFLOW_EXPERIMENT_NAME="+t.Name(), "TF_CPP_MIN_LOG_LEVEL=2", "MPLBACKEND=agg"), f.env...)
			printed, ids := shown(t, cmd)
			log := ""
			if printed != "" {
				log = "What the client printed:\n\n```\n" + printed + "\n```\n\n"
			}
			for _, want := range f.runs {
				if want.late {
					eventually(t, "the late accuracy", func() bool { return of(t, ids[want.name]).Tags["emissions.accuracy_key"] == want.want })
				}
				r := of(t, ids[want.name])
				log += runLog(want.name, r)
				checkTraining(t, f.name+", "+want.name, r, want)
			}
			t.Log("\n" + log)
			if t.Failed() {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			logs[f.name] = log
		})
	}
}

// shown runs a script and returns what it printed, without MLflow's links, and the runs' ids, which are its last line.
func shown(t *testing.T, cmd *exec.Cmd) (printed string, ids map[string]string) {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", out, &stderr)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := len(lines) - 1
	require.NoError(t, json.Unmarshal([]byte(lines[last]), &ids), string(out))
	lines = slices.DeleteFunc(lines[:last], func(l string) bool { return strings.Contains(l, " View ") })
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ") // Lightning fills its tables up
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n"), ids
}

// checkTraining checks which metrics a client sent, and what became of them.
func checkTraining(t *testing.T, name string, r mlflow.Run, want training) {
	t.Helper()
	m := figures(t, r)
	var sent []string
	for key := range m {
		if !strings.HasPrefix(key, "emission") && key != "accuracy_per_emission" {
			sent = append(sent, key)
		}
	}
	assert.ElementsMatch(t, strings.Fields(want.keys), sent, name)
	assert.Equal(t, want.want, r.Tags["emissions.accuracy_key"], name)
	if want.want == "" {
		assert.NotContains(t, m, "accuracy_per_emission", name)
		return
	}
	percent := 100 * m[want.want]
	if strings.HasSuffix(want.want, "error") {
		percent = 100 - percent
	}
	assert.Greater(t, percent, 30.0, "%s: it learnt something", name)
	assert.InEpsilon(t, percent/m["emissions_g"], m["accuracy_per_emission"], 1e-9, name)
}

// runLog is a run as the server has it: what the client sent, our three metrics, and the tags that are about them.
func runLog(name string, r mlflow.Run) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Run `%s`:\n\n```\n", name)
	for _, key := range slices.Sorted(maps.Keys(r.Metrics)) {
		if !strings.HasPrefix(key, "emissions/") {
			fmt.Fprintf(&b, "%-45s %.6g (step %d)\n", key, r.Metrics[key].Value, r.Metrics[key].Step)
		}
	}
	for _, key := range []string{"emissions.accuracy_key", "emissions.status", "emissions.scope", "emissions.method.cpu"} {
		if value, ok := r.Tags[key]; ok {
			fmt.Fprintf(&b, "%-45s %s\n", key, value)
		}
	}
	return b.String() + "```\n\n"
}

// writeFlavourLogs puts the logs of these trainings into docs/flavours.md, where that is asked for.
func writeFlavourLogs(t *testing.T, logs map[string]string) {
	path := os.Getenv("E2E_FLAVOURS_LOG")
	if path == "" {
		return
	}
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	head, old, found := strings.Cut(string(page), "\n## Logs\n")
	require.True(t, found, "%s has no part for logs", path)
	require.NoError(t, os.WriteFile(path, []byte(head+"\n## Logs\n"+withLogs(old, logs)), 0o644))
}

// withLogs is the part for logs with those of some flavours replaced: each stands under its flavour's name, in
// allFlavours' order. Those of other flavours stay, and so does what is before the first of them.
func withLogs(old string, logs map[string]string) string {
	parts := strings.Split(old, "\n### ")
	all := map[string]string{}
	for _, part := range parts[1:] {
		name, log, _ := strings.Cut(part, "\n")
		all[name] = log
	}
	maps.Copy(all, logs)
	text := strings.TrimRight(parts[0], "\n") + "\n"
	for _, f := range allFlavours {
		if log, ok := all[f.name]; ok {
			text += "\n### " + f.name + "\n\n" + strings.Trim(log, "\n") + "\n"
		}
	}
	return text
}

// Training some of the flavours again must not lose the logs of the others, which may take gigabytes to make again.
func TestLogsOfOtherFlavoursStay(t *testing.T) {
	t.Parallel()
	const old = "\nMade so.\n\n### scikit-learn\n\nold\n\n### Transformers\n\nkept\n"
	got := withLogs(old, map[string]string{"PyTorch": "new\n\n", "scikit-learn": "again\n"})
	assert.Equal(t, "\nMade so.\n\n### scikit-learn\n\nagain\n\n### PyTorch\n\nnew\n\n### Transformers\n\nkept\n", got)
	assert.Equal(t, got, withLogs(got, nil), "nothing trained, nothing changed")
}
