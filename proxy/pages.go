package proxy

import "mlflow-emissions-proxy/mlflow"

// Accuracy picks a run's accuracy in percent, and the key that it stands under, as it is picked for
// accuracy_per_emission: by the run's own tag, by the keys that the user names, or by the usual names.
func Accuracy(r mlflow.Run, named []string) (percent float64, key string, ok bool) {
	return accuracy(r.Metrics, wantedAccuracy(r, named))
}

// wantedAccuracy returns the keys to take as a run's accuracy; none for the usual names.
func wantedAccuracy(r mlflow.Run, named []string) []string {
	if key := r.Tags[tagAccuracyMetric]; key != "" {
		return []string{key}
	}
	return named
}
