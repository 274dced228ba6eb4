package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// column is one column of the table. Those that have a value are numbers: right-aligned, and sorted as such.
type column struct {
	key, title string
	help       string // what it is, for who points at it
	value      func(Run) Value
	text       func(Run) string // of columns without a value; and with one, where the number alone is not enough
	units      []unit           // the column is shown in one of these
	like       func(Run) Value  // whose unit it shares, so that the two can be compared; nil: its own
	unit       string           // what its unit is, where there is no choice; in CSV, where it is not in the key
	hidden     bool             // until asked for
}

// columns are all columns, in their order. A key is also the name in the address bar and in CSV.
var columns = []column{
	{key: "name", title: "Run", text: func(r Run) string { return cmp.Or(r.Name, r.ID) }},
	{key: "experiment", title: "Experiment", text: func(r Run) string { return cmp.Or(r.Experiment, r.ExperimentID) }, hidden: true},
	{key: "metering", title: "Metering", help: "How far the run was metered", text: func(r Run) string { return strings.TrimSuffix(string(r.Metering)+": "+r.Why, ": ") }},
	{key: "size", title: "Parameters", help: "The bubble's area", value: func(r Run) Value { return r.Size }, units: countUnits},
	{key: "accuracy", title: "Accuracy", help: "Accuracy on test data, where there is one", value: func(r Run) Value { return r.Accuracy }, unit: "%"},
	{key: "emissions_g", title: "Emissions", help: "CO2-equivalent emitted for the run", value: func(r Run) Value { return r.Emissions }, units: massUnits},
	{key: "interval", title: "Low" + dash + "high", help: "The interval that the methods' known errors give", value: func(r Run) Value { return r.High }, units: massUnits, like: func(r Run) Value { return r.Emissions }},
	{key: "energy_kwh", title: "Energy", help: "Before PUE", value: func(r Run) Value { return r.Energy }, units: energyUnits, hidden: true},
	{key: "cpu_energy_kwh", title: "CPU", help: "Energy of the CPU", value: func(r Run) Value { return r.CPU }, units: energyUnits, like: func(r Run) Value { return r.Energy }},
	{key: "gpu_energy_kwh", title: "GPU", help: "Energy of the GPUs", value: func(r Run) Value { return r.GPU }, units: energyUnits, like: func(r Run) Value { return r.Energy }},
	{key: "ram_energy_kwh", title: "RAM", help: "Energy of memory", value: func(r Run) Value { return r.RAM }, units: energyUnits, like: func(r Run) Value { return r.Energy }},
	{key: "duration_s", title: "Duration", help: "Metered time", value: func(r Run) Value { return r.Duration }, text: func(r Run) string { return Seconds(r.Duration) }},
	{key: "accuracy_per_emission", title: "Accuracy per emission", help: "Test accuracy in % / grams emitted for training", value: func(r Run) Value { return r.PerEmission }, units: ratioUnits},
	{key: "emission_per_10_inferences", title: "Per 10 inferences", help: "Emitted for ten predictions", value: func(r Run) Value { return r.Per10 }, units: massUnits},
	{key: "method", title: "Method", help: "By which method each component was metered", text: Run.method},
	{key: "location", title: "Location", help: "Where the electricity came from", text: func(r Run) string { return r.Location }},
	{key: "intensity", title: "Intensity", help: "Carbon intensity of the electricity", value: func(r Run) Value { return r.Intensity }, unit: "g/kWh", hidden: true},
	{key: "training_g", title: "Training", help: "Emitted for training, where an inference phase is known", value: func(r Run) Value { return r.Training }, units: massUnits, hidden: true},
	{key: "inference_g", title: "Inference", help: "Emitted in the inference phase", value: func(r Run) Value { return r.Inference }, units: massUnits, hidden: true},
	{key: "inference_interval", title: "Inference low" + dash + "high", help: "The interval of it; wide where the phase was brief", value: func(r Run) Value { return r.InferenceHigh }, units: massUnits, like: func(r Run) Value { return r.Inference }, hidden: true},
	{key: "scope", title: "Scope", help: "Whose energy it is", text: func(r Run) string { return r.Scope }, hidden: true},
	{key: "host", title: "Host", text: func(r Run) string { return r.Host }, hidden: true},
	{key: "user", title: "User", text: func(r Run) string { return r.User }, hidden: true},
	{key: "status", title: "Status", help: "MLflow's", text: func(r Run) string { return r.Status }, hidden: true},
	{key: "start", title: "Started (UTC)", text: func(r Run) string {
		if r.Start == nil {
			return ""
		}
		return r.Start.UTC().Format(time.DateTime)
	}, hidden: true},
}

// method says by which method each component was metered: cpu rapl, ram model:resident.
func (r Run) method() string {
	var parts []string
	for _, component := range slices.Sorted(maps.Keys(r.Methods)) {
		if name := r.Methods[component]; !strings.HasPrefix(name, "none") {
			parts = append(parts, component+" "+name)
		}
	}
	return strings.Join(parts, ", ")
}

// unitOf returns the unit that a column of these runs is shown in, and how many of the figures' own are in it.
func (c column) unitOf(runs []Run) unit {
	if c.units == nil {
		return unit{c.unit, 1}
	}
	of := c.value
	if c.like != nil {
		of = c.like
	}
	var values []Value
	for _, r := range runs {
		values = append(values, of(r))
	}
	return common(c.units, values)
}

// show writes a run's figure in a unit.
func (c column) show(r Run, u unit) string {
	switch {
	case c.key == "interval":
		return between(r.Low/u.scale, r.High/u.scale)
	case c.key == "inference_interval":
		return between(r.InferenceLow/u.scale, r.InferenceHigh/u.scale)
	case c.text != nil:
		return c.text(r)
	}
	return plain(c.value(r) / u.scale)
}

// between writes an interval.
func between(low, high Value) string {
	if !low.Known() || !high.Known() {
		return dash
	}
	return plain(low) + dash + plain(high)
}

// isInterval says whether a column shows two numbers.
func (c column) isInterval() bool { return strings.HasSuffix(c.key, "interval") }

// shown returns the columns to show: those named, or those that are not hidden, of which those that say nothing about
// any of these runs are left out.
func shown(runs []Run, experiments int, named []string) []column {
	var cols []column
	for _, c := range columns {
		hidden := c.hidden && (c.key != "experiment" || experiments < 2)
		if len(named) > 0 {
			hidden = !slices.Contains(named, c.key) && c.key != "name"
		} else if !hidden && (c.key == "size" || c.key == "gpu_energy_kwh") {
			hidden = !slices.ContainsFunc(runs, func(r Run) bool { return c.value(r).Known() })
		}
		if !hidden {
			cols = append(cols, c)
		}
	}
	return cols
}

// CheckColumns says which names are no column's.
func CheckColumns(names []string) error {
	for _, name := range names {
		if name != "" && !slices.ContainsFunc(columns, func(c column) bool { return c.key == name }) {
			var keys []string
			for _, c := range columns {
				keys = append(keys, c.key)
			}
			return fmt.Errorf("%q is no column; these are: %s", name, strings.Join(keys, ", "))
		}
	}
	return nil
}
