package proxy

import (
	"cmp"

	"mlflow-emissions-proxy/mlflow"
)

// Accuracy returns a run's accuracy in percent, and the key that it stands under: what was taken for
// accuracy_per_emission, or would be. named are keys that the user names for all runs; none for the usual names.
func Accuracy(r mlflow.Run, named []string) (percent float64, key string, ok bool) {
	if key := cmp.Or(r.Tags[tagAccuracyKey], r.Tags[tagAccuracyMetric]); key != "" {
		named = []string{key}
	}
	return accuracy(r, named)
}
