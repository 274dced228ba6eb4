package report

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlflow-emissions-proxy/mlflow"
)

// A size is what the bubbles' area shows: a param or a metric of the runs, by default the number of a model's parameters.
const (
	sizeParam  = "param:"
	sizeMetric = "metric:"
	sizeNone   = "none" // all bubbles are alike
)

// parameterNames are the names that people give to the number of a model's parameters, the plainest first.
var parameterNames = []*regexp.Regexp{
	regexp.MustCompile(`(?i)^(model[._/ -]?)?(param(eter)?s?[._/ -]?count|(n|num|number[._/ -]of|no|count|total)[._/ -]?(model[._/ -]?)?param(eter)?s?)$`),
	regexp.MustCompile(`(?i)^(model[._/ -]?)?param(eter)?s$`),
	regexp.MustCompile(`(?i)^(model[._/ -]?)?((n|num|total)[._/ -]?)?trainable[._/ -]?param(eter)?s?([._/ -]?count)?$`),
	regexp.MustCompile(`(?i)^(model[._/ -]?size|param(eter)?s?[._/ -]?(m|millions?))$`),
}

// sizes returns what the bubbles' area may show, sorted: every param and metric that is a number in at least one run;
// and the best guess at the number of parameters, sizeNone if there is none.
func sizes(runs []mlflow.Run) (all []string, guess string) {
	found := map[string]bool{}
	for _, r := range runs {
		for key, value := range r.Params {
			if !found[sizeParam+key] && magnitude(value) > 0 {
				found[sizeParam+key] = true
			}
		}
		for key := range r.Metrics {
			if !isOurs(key) && !strings.HasPrefix(key, "system/") {
				found[sizeMetric+key] = true
			}
		}
	}
	all = slices.Sorted(maps.Keys(found))
	for _, names := range parameterNames {
		for _, kind := range []string{sizeParam, sizeMetric} {
			for _, size := range all {
				if key, ok := strings.CutPrefix(size, kind); ok && names.MatchString(key) {
					return all, size
				}
			}
		}
	}
	return all, sizeNone
}

// isOurs says whether a metric is one of the proxy's.
func isOurs(key string) bool {
	return key == metricEmissions || key == metricAccuracy || key == metricInferences || strings.HasPrefix(key, "emissions/")
}

// sizeOf returns a run's size.
func sizeOf(r mlflow.Run, size string) Value {
	if key, ok := strings.CutPrefix(size, sizeParam); ok {
		if v := magnitude(r.Params[key]); v > 0 {
			return v
		}
	}
	if key, ok := strings.CutPrefix(size, sizeMetric); ok {
		if m, ok := r.Metrics[key]; ok && m.Value > 0 && Value(m.Value).Known() {
			return Value(m.Value)
		}
	}
	return unknown
}

// magnitude reads a number as people write sizes into params: 25636712, 25,636,712, 25.6M, 7B. It is NaN if it is none.
func magnitude(s string) Value {
	s = strings.NewReplacer(",", "", "_", "", " ", "").Replace(strings.TrimSpace(s))
	scale := 1.0
	if n := len(s); n > 1 {
		if factor, ok := map[byte]float64{'k': 1e3, 'K': 1e3, 'm': 1e6, 'M': 1e6, 'b': 1e9, 'B': 1e9, 'G': 1e9}[s[n-1]]; ok {
			s, scale = s[:n-1], factor
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !Value(v).Known() {
		return unknown
	}
	return Value(scale * v)
}
