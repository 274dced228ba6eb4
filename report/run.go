// Package report compares runs by what they emitted: the page under /emissions/, and the same as a table, CSV, JSON, one
// HTML file or a plot. It reads MLflow as whoever asks may read it, and writes nothing but the report that is asked for.
//
// A reader begins with run.go (what is known of a run), then compare.go (of many), then handler.go and page.go.
package report

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// Names of what the proxy writes into a run, as the README lists them.
const (
	metricEmissions  = "emissions_g"
	metricAccuracy   = "accuracy_per_emission"
	metricInferences = "emission_per_10_inferences"
	metricEnergy     = "emissions/energy_kwh"
	metricCPU        = "emissions/cpu_energy_kwh"
	metricGPU        = "emissions/gpu_energy_kwh"
	metricRAM        = "emissions/ram_energy_kwh"
	metricDuration   = "emissions/duration_s"
	metricTraining   = "emissions/training_g"
	metricInference  = "emissions/inference_g"
	metricInferLow   = "emissions/inference_low_g"
	metricInferHigh  = "emissions/inference_high_g"
	metricLow        = "emissions/low_g"
	metricHigh       = "emissions/high_g"

	tagStatus          = "emissions.status"
	tagScope           = "emissions.scope"
	tagMethod          = "emissions.method."
	tagIntensity       = "emissions.intensity"
	tagIntensitySource = "emissions.intensity_source"
	tagLocation        = "emissions.location"
	tagPUE             = "emissions.pue"
	tagHost            = "emissions.host"
	tagClientMetrics   = "emissions.client_metrics"
	tagSkip            = "emissions.skip"
	tagVersion         = "emissions.version"
	tagParent          = "mlflow.parentRunId"
)

// Value is a figure of a run; NaN if it is not known, which JSON shows as null.
type Value float64

// unknown is the figure that is not there.
var unknown = Value(math.NaN())

// Known says whether there is such a figure.
func (v Value) Known() bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }

// MarshalJSON is json.Marshaler's.
func (v Value) MarshalJSON() ([]byte, error) {
	if !v.Known() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(v))
}

// Metering says how far a run was metered.
type Metering string

// How far a run was metered.
const (
	Measured   Metering = "measured"
	Partial    Metering = "partial"    // less than the truth; Why says what is missing
	Unmeasured Metering = "unmeasured" // no figures; Why says the reason
	Running    Metering = "running"    // figures so far
	Skipped    Metering = "skipped"    // by the user's tag emissions.skip
	Unseen     Metering = "unseen"     // did not go through a proxy of ours
)

// Run is what is known of a run's emissions. It is what the JSON shows.
type Run struct {
	ID            string            `json:"run_id"`
	Name          string            `json:"run_name"`
	ExperimentID  string            `json:"experiment_id"`
	Experiment    string            `json:"experiment_name"`
	User          string            `json:"user"`
	Status        string            `json:"status"`     // MLflow's: RUNNING, FINISHED, ...
	Start         *time.Time        `json:"start_time"` // null if there is none
	End           *time.Time        `json:"end_time"`
	Parent        string            `json:"parent_run_id,omitempty"`
	Inside        bool              `json:"inside_parent"` // its figures are in those of its parent, which is compared, too
	Metering      Metering          `json:"metering"`
	Why           string            `json:"why,omitempty"`
	Accuracy      Value             `json:"accuracy_percent"`
	AccuracyKey   string            `json:"accuracy_key,omitempty"`
	Size          Value             `json:"size"` // of its bubble: the number of its parameters
	Emissions     Value             `json:"emissions_g"`
	Low           Value             `json:"low_g"`
	High          Value             `json:"high_g"`
	Training      Value             `json:"training_g"`
	Inference     Value             `json:"inference_g"`
	InferenceLow  Value             `json:"inference_low_g"`
	InferenceHigh Value             `json:"inference_high_g"`
	Energy        Value             `json:"energy_kwh"`
	CPU           Value             `json:"cpu_energy_kwh"`
	GPU           Value             `json:"gpu_energy_kwh"`
	RAM           Value             `json:"ram_energy_kwh"`
	Duration      Value             `json:"duration_s"`
	PerEmission   Value             `json:"accuracy_per_emission"`
	Per10         Value             `json:"emission_per_10_inferences"`
	Methods       map[string]string `json:"methods"` // by component: cpu, gpu, ram, wall
	Scope         string            `json:"scope,omitempty"`
	Location      string            `json:"location,omitempty"`
	Intensity     Value             `json:"intensity_g_per_kwh"`
	IntensityFrom string            `json:"intensity_source,omitempty"`
	PUE           Value             `json:"pue"`
	Host          string            `json:"host,omitempty"`
	Pareto        bool              `json:"pareto"` // no other that is compared is as accurate for less
	URL           string            `json:"url"`    // of its page in MLflow
}

// runOf reads a run's figures.
func runOf(r mlflow.Run) Run {
	metric := func(key string) Value {
		if m, ok := r.Metrics[key]; ok && Value(m.Value).Known() {
			return Value(m.Value)
		}
		return unknown
	}
	number := func(tag string) Value {
		if v, err := strconv.ParseFloat(r.Tags[tag], 64); err == nil {
			return Value(v)
		}
		return unknown
	}
	run := Run{
		ID: r.ID, Name: r.Name, ExperimentID: r.ExperimentID, User: r.User, Status: r.Status,
		Start: present(r.Start), End: present(r.End), Parent: r.Tags[tagParent],
		Accuracy: unknown, Size: unknown,
		Emissions: metric(metricEmissions), Low: metric(metricLow), High: metric(metricHigh),
		Training: metric(metricTraining), Inference: metric(metricInference), InferenceLow: metric(metricInferLow), InferenceHigh: metric(metricInferHigh),
		Energy: metric(metricEnergy), CPU: metric(metricCPU), GPU: metric(metricGPU), RAM: metric(metricRAM),
		Duration: metric(metricDuration), PerEmission: metric(metricAccuracy), Per10: metric(metricInferences),
		Methods: map[string]string{}, Scope: r.Tags[tagScope], Location: r.Tags[tagLocation],
		Intensity: number(tagIntensity), IntensityFrom: r.Tags[tagIntensitySource], PUE: number(tagPUE),
		Host: r.Tags[tagHost],
	}
	for tag, value := range r.Tags {
		if component, ok := strings.CutPrefix(tag, tagMethod); ok {
			run.Methods[component] = value
		}
	}
	if m, ok := r.Metrics[metricEmissions]; ok && !run.Duration.Known() && r.Tags[tagVersion] != "" {
		run.Duration = Value(m.Step) // of a running run: the step of its curve is the time metered
	}
	run.Metering, run.Why = metering(r)
	if own := r.Tags[tagClientMetrics]; own != "" {
		run.Why = strings.TrimPrefix(run.Why+"; the client's own: "+own, "; ")
	}
	return run
}

// metering reads how far a run was metered.
func metering(r mlflow.Run) (m Metering, why string) {
	status := r.Tags[tagStatus]
	kind, why, _ := strings.Cut(status, ": ")
	switch {
	case r.Status == "RUNNING" && r.Tags[tagSkip] != "true":
		return Running, why
	case kind == string(Measured), kind == string(Partial), kind == string(Unmeasured):
		return Metering(kind), why
	case r.Tags[tagSkip] == "true":
		return Skipped, "its tag " + tagSkip + " says so"
	case r.Tags[tagVersion] != "": // a curve without an end
		return Partial, "the metering did not see its end"
	}
	return Unseen, "it did not go through this proxy, or was not metered yet"
}

func present(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
