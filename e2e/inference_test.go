package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// infer executes a scenario of clients that predict, in an experiment of this test.
func (p *proxy) infer(scenario string, args ...string) map[string]any {
	p.t.Helper()
	return output(p.t, p.python("inference.py", append([]string{p.t.Name(), scenario}, args...)...))
}

// inferred checks a run's figures for so many predictions, counted by source.
func inferred(t *testing.T, id any, count float64, source string) map[string]float64 {
	t.Helper()
	r := of(t, id)
	m := figures(t, r)
	assert.Equal(t, source, r.Tags["emissions.inferences_source"])
	assert.Equal(t, fmt.Sprint(count), r.Tags["emissions.inferences"])
	require.Greater(t, m["emissions/inference_g"], 0.0)
	assert.InEpsilon(t, 10*m["emissions/inference_g"]/count, m["emission_per_10_inferences"], 1e-9)
	assert.InEpsilon(t, m["emissions_g"], m["emissions/training_g"]+m["emissions/inference_g"], 1e-9)
	return m
}

// notInferred checks that nothing is said of predictions that nobody made.
func notInferred(t *testing.T, id any) {
	t.Helper()
	r := of(t, id)
	m := figures(t, r)
	assert.NotContains(t, m, "emission_per_10_inferences")
	assert.NotContains(t, m, "emissions/inference_g")
	assert.NotContains(t, r.Tags, "emissions.inferences")
}

// figures of the real mlflow.genai.evaluate: its items are the predictions, its scorers' spans are not, and where the
// outputs stand in the data nothing is predicted.
func TestGenAIEvaluate(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	t.Run("in a run", func(t *testing.T) {
		m := inferred(t, p.infer("genai", "in a run")["run"], 6, "mlflow.genai.evaluate")
		assert.Greater(t, m["emissions/training_g"], 0.0)
	})
	t.Run("without one", func(t *testing.T) { inferred(t, p.infer("genai", "alone")["run"], 6, "mlflow.genai.evaluate") })
	t.Run("after traced predictions", func(t *testing.T) {
		inferred(t, p.infer("genai", "traced before")["run"], 7, "mlflow.genai.evaluate+traces")
	})
	t.Run("of outputs in the data", func(t *testing.T) { notInferred(t, p.infer("genai", "static")["run"]) })
}

// Traced functions of a run predict; what failed and what was in no run does not count. MLflow writes traces in the
// background, after the run's end as well.
func TestTracedPredictions(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	id := p.infer("traced")["run"]
	eventually(t, "all traces", func() bool { return of(t, id).Tags["emissions.inferences"] == "4" })
	m := inferred(t, id, 4, "traces")
	assert.Greater(t, m["emissions/training_g"], m["emissions/inference_g"])
}

// Spans by OpenTelemetry's protocol, in each encoding, that the real server takes for the run.
func TestOpenTelemetry(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	for _, encoding := range []string{"protobuf", "gzip", "json"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			inferred(t, p.infer("otlp", encoding)["run"], 4, "traces")
		})
	}
}

// Several evaluations in one run count together; a model that is traced as well, and metrics that MLflow logs twice, count
// once. Predictions that stand in the data are nobody's.
func TestEvaluations(t *testing.T) {
	t.Parallel()
	p := startProxy(t)
	for _, how := range []string{"not traced", "traced"} {
		t.Run(how, func(t *testing.T) {
			m := inferred(t, p.infer("evaluations", how)["run"], 100, "mlflow.models.evaluate")
			assert.Greater(t, m["emissions/training_g"], 0.0)
		})
	}
	t.Run("predicted before", func(t *testing.T) { notInferred(t, p.infer("predicted_before")["run"]) })
}
