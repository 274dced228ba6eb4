package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// predictions runs a scenario of testdata/predictions.py.
func (p *proxy) predictions(scenario string, args ...string) map[string]any {
	p.t.Helper()
	return output(p.t, p.python("predictions.py", append([]string{p.t.Name(), scenario}, args...)...))
}

// scikit-learn predicts 10,000 rows. What the run says of ten predictions is what a run of its own, around the same
// predictions, was counted.
func TestTenThousandPredictions(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.predictions("sklearn")
	run, alone := of(t, out["run"]), of(t, out["alone"])
	m := figures(t, run)
	own := figures(t, alone)
	assert.InEpsilon(t, 10*own["emissions_g"]/10_000, m["emission_per_10_inferences"], 0.1)
	assert.InEpsilon(t, 100*run.Metrics["test_accuracy"].Value/m["emissions/training_g"], m["accuracy_per_emission"], 1e-9)
	assert.NotContains(t, own, "accuracy_per_emission")
}

// Predictions on a run that is FINISHED, which mlflow-emissions-sdk taught people to make: they are metered from the tag
// on, until the next tag, the next run, or the end of the process.
func TestPredictionsAfterTheEnd(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	for _, end := range []string{"training", "another run", "another run's predictions", "exit"} {
		out := p.predictions("after_the_end", end)
		trained := out["trained"].(map[string]any)
		id := out["run"]
		eventually(t, "the ratio is there", func() bool { return of(t, id).Metrics["emission_per_10_inferences"].Value > 0 })
		r := of(t, id)
		m := figures(t, r)
		assert.Equal(t, "FINISHED", r.Status)
		assert.InEpsilon(t, trained["emissions_g"].(float64), m["emissions/training_g"], 1e-9)
		assert.InEpsilon(t, m["emissions_g"], m["emissions/training_g"]+m["emissions/inference_g"], 1e-9)
		assert.InEpsilon(t, 10*m["emissions/inference_g"]/500, m["emission_per_10_inferences"], 1e-9)
		assert.InEpsilon(t, 75/m["emissions/training_g"], m["accuracy_per_emission"], 1e-9)
		assert.Greater(t, m["emissions/inference_g"], m["emissions/training_g"]/3, "half of a second's work and a second's: %s", end)
		if other := out["other"]; other != nil {
			key := "emissions_g"
			if strings.HasSuffix(end, "predictions") {
				key = "emissions/inference_g"
				eventually(t, "the process's end is seen", func() bool { return of(t, other).Metrics[key].Value > 0 })
			}
			assert.Greater(t, figures(t, of(t, other))[key], m["emissions/training_g"]/3, "what comes next shares with nobody: %s", end)
		}
	}
}

// A script whose program predicts on a run that is FINISHED goes on to other work, which would have been taken for
// predictions for as long as the script lives, where the program took less than two seconds: the script stands in for a
// program that was there only to set the tag, not for one that has counted what it predicted.
func TestAScriptGoesOnAfterPredictions(t *testing.T) {
	needCurl(t)
	t.Parallel()
	p := startProxy(t)
	r := of(t, p.scripted(curlCreate+curlFinish+`
"$PYTHON" -c '
import os, requests, sys, time
session = requests.Session()
def tag(key, value):
    session.post(os.environ["URI"] + "/set-tag", json={"run_id": sys.argv[1], "key": "emissions." + key, "value": value}).raise_for_status()
tag("phase", "inference")
end = time.process_time() + 0.3
while time.process_time() < end: pass
tag("inferences", "500")
' "$RUN"
for _ in $(seq 100); do
	curl -sS "$URI/get?run_id=$RUN" | grep -q emission_per_10_inferences && exit 0
	sleep 0.2
done
echo "the predictions go on with the script"
exit 1
`))
	m := figures(t, r)
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/500, m["emission_per_10_inferences"], 1e-9)
}

// Ten predictions of a small model take a few milliseconds of one CPU, which no sensor tells apart: the figure is of the
// right size, and says how it came about.
func TestTenPredictions(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.predictions("ten")
	r := of(t, out["run"])
	for range 4 { // a machine that is busy with other things may take too long to set the tags
		if r.Tags["emissions.inference_method"] != "readings" {
			break
		}
		out = p.predictions("ten")
		r = of(t, out["run"])
	}
	m := figures(t, r)
	require.Contains(t, r.Tags["emissions.inference_method"], "CPU time x power", "the predictions took %v s", out["least_cpu_s"])
	low, high, whole := m["emissions/inference_low_g"], m["emissions/inference_high_g"], out["all_cpu_s"].(float64)
	assert.LessOrEqual(t, low, m["emissions/inference_g"]/1.4)
	assert.GreaterOrEqual(t, high, m["emissions/inference_g"]*1.4)
	// By CPU time it is between what the predictions took, and that with all that the client does to set the two tags.
	assert.GreaterOrEqual(t, high/m["emissions_g"], out["least_cpu_s"].(float64)/whole)
	assert.LessOrEqual(t, low/m["emissions_g"], out["most_cpu_s"].(float64)/whole)
}

// A model that was trained in another run is evaluated: what that takes is no training, and gives no accuracy per emission.
func TestEvaluationOfAnotherRunsModel(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	out := p.predictions("evaluates_anothers")
	r := of(t, out["evaluation"])
	m := figures(t, r)
	assert.Equal(t, "200", r.Tags["emissions.inferences"])
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/200, m["emission_per_10_inferences"], 1e-9)
	assert.Contains(t, r.Metrics, "accuracy_score")
	assert.NotContains(t, m, "accuracy_per_emission")
}
