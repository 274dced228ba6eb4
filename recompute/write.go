package recompute

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/mlflow"
)

// Names of what runs keep, as the proxy writes them.
const (
	metricEmissions     = "emissions_g"
	metricAccuracy      = "accuracy_per_emission"
	metricInferences    = "emission_per_10_inferences"
	metricSDKEmissions  = "emissions"
	metricSDKInferences = "emissions_per_10_predictions"
	metricEnergy        = "emissions/energy_kwh"
	metricFacility      = "emissions/facility_energy_kwh"
	metricDuration      = "emissions/duration_s"
	metricTraining      = "emissions/training_g"
	metricInference     = "emissions/inference_g"
	metricInferLow      = "emissions/inference_low_g"
	metricInferHigh     = "emissions/inference_high_g"
	metricLow           = "emissions/low_g"
	metricHigh          = "emissions/high_g"
	metricSCI           = "emissions/sci_g_per_inference"
	tagStatus           = "emissions.status"
	tagIntensity        = "emissions.intensity"
	tagSource           = "emissions.intensity_source"
	tagKind             = "emissions.intensity_kind"
	tagLocation         = "emissions.location"
	tagPUE              = "emissions.pue"
	tagSlices           = "emissions.slices"
	tagVersion          = "emissions.version"
	tagClientMetrics    = "emissions.client_metrics"
	tagParent           = "mlflow.parentRunId"
	tagRecomputed       = "emissions.recomputed"

	partTraining  = "training" // the parts of the tag emissions.slices
	partInference = "inference"
)

// Write puts the answers' figures into their runs, in the place of those that are there; MLflow keeps the old ones in each
// metric's history. It returns how many runs it changed: none at all where one has a ratio that zero emissions do not give,
// since MLflow has no call that takes a metric back.
func Write(ctx context.Context, server Tracking, caller mlflow.Caller, answers []Answer, at time.Time) (int, error) {
	for _, a := range answers {
		if key := a.stale(); key != "" {
			return 0, fmt.Errorf("nothing was written: zero emissions give no %s, and that of run %s cannot be taken back", key, a.Run.ID)
		}
	}
	written := 0
	for _, a := range answers {
		if a.Why != "" {
			continue
		}
		metrics, tags := a.batch(at)
		body, err := mlflow.Batch(a.Run.ID, metrics, tags)
		if err == nil {
			err = server.LogBatch(ctx, caller, body)
		}
		if err != nil {
			return written, fmt.Errorf("run %s: %w", a.Run.ID, err)
		}
		written++
	}
	return written, nil
}

// stale returns the ratio of the proxy's own that the run has and would not have with the answer's emissions; "" for none.
func (a Answer) stale() string {
	gone := func(key string, was, now carbon.Mass) bool {
		_, has := a.Run.Metrics[key]
		return has && was > 0 && now <= 0 && !a.isClients(key)
	}
	switch {
	case a.Why != "":
	case gone(metricAccuracy, a.wasTraining, a.training):
		return metricAccuracy
	case gone(metricInferences, a.wasInference, a.inference):
		return metricInferences
	}
	return ""
}

// batch is what is written of an answer. What follows from grams follows from the new ones: the ratios by the proportion
// in which they change, since neither accuracy nor the number of predictions does.
func (a Answer) batch(at time.Time) ([]mlflow.Metric, []mlflow.Tag) {
	var metrics []mlflow.Metric
	metric := func(key string, v float64) {
		if math.IsNaN(v) || math.IsInf(v, 0) || a.isClients(key) {
			return
		}
		// The step of the value that is there, at which the later one counts.
		metrics = append(metrics, mlflow.Metric{Key: key, Value: v, Timestamp: at.UnixMilli(), Step: a.Run.Metrics[key].Step})
	}
	scaled := func(key string, from, to carbon.Mass, inverse bool) {
		m, ok := a.Run.Metrics[key]
		switch {
		case !ok || from <= 0 || inverse && to <= 0:
		case inverse:
			metric(key, m.Value*from.Grams()/to.Grams())
		default:
			metric(key, m.Value*to.Grams()/from.Grams())
		}
	}
	metric(metricEmissions, a.Now.Grams())
	if a.inferred {
		metric(metricTraining, a.training.Grams())
		metric(metricInference, a.inference.Grams())
	}
	scaled(metricLow, a.Was, a.Now, false)
	scaled(metricHigh, a.Was, a.Now, false)
	scaled(metricInferLow, a.wasInference, a.inference, false)
	scaled(metricInferHigh, a.wasInference, a.inference, false)
	scaled(metricAccuracy, a.wasTraining, a.training, true)
	scaled(metricInferences, a.wasInference, a.inference, false)
	// The names of mlflow-emissions-sdk hold copies, if the proxy was told to write them; a client's own are left alone.
	if m, ok := a.Run.Metrics[metricSDKEmissions]; ok && m.Value == a.wasTraining.Grams() {
		metric(metricSDKEmissions, a.training.Grams())
	}
	if m, ok := a.Run.Metrics[metricSDKInferences]; ok && m.Value == a.Run.Metrics[metricInferences].Value {
		scaled(metricSDKInferences, a.wasInference, a.inference, false)
	}
	if per10, ok := a.Run.Metrics[metricInferences]; ok && a.wasInference > 0 {
		if sci, ok := a.Run.Metrics[metricSCI]; ok { // its embodied part stays
			metric(metricSCI, sci.Value+per10.Value/10*(a.inference.Grams()/a.wasInference.Grams()-1))
		}
	}
	metric(metricFacility, a.KWh*a.PUE)

	text := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	tags := []mlflow.Tag{
		{Key: tagIntensity, Value: text(a.intensity())},
		{Key: tagSource, Value: carbon.DescribeSources(a.Factors)},
		{Key: tagKind, Value: carbon.DescribeKinds(a.Factors)},
		{Key: tagPUE, Value: text(a.PUE)},
		{Key: tagRecomputed, Value: fmt.Sprintf("%s; before: %s g, %s g/kWh (%s), PUE %s, %s", at.UTC().Format(time.RFC3339), text(a.Was.Grams()),
			a.Run.Tags[tagIntensity], a.Run.Tags[tagSource], a.Run.Tags[tagPUE], a.Run.Tags[tagLocation])},
	}
	if a.relocate {
		tags = append(tags, mlflow.Tag{Key: tagLocation, Value: a.supply.Place().Code})
	}
	return metrics, tags
}

// intensity is the one figure that holds for the whole run, or the mean by energy of several.
func (a Answer) intensity() float64 {
	first := a.Factors[0].Intensity
	for _, f := range a.Factors {
		if f.Intensity != first && a.KWh > 0 {
			return a.Now.Grams() / (a.KWh * a.PUE)
		}
	}
	return first.GPerKWh()
}
