package proxy

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	"mlflow-emissions-proxy/mlflow"
)

// tiers are the kinds of accuracy, best first: what a model does on data that it has never seen comes before what
// it does on data that it was chosen by, and that before what it was fitted to.
const (
	tierTest = iota
	tierEvaluation
	tierValidation
	tierBare
	tierTraining
	noTier
)

// accuracy picks a run's accuracy as a percentage, and the key that it stands under. wanted are keys that the user
// named, first match wins; without them the usual names are tried in the order of the tiers.
func accuracy(metrics map[string]mlflow.Metric, wanted []string) (percent float64, key string, ok bool) {
	for _, key := range wanted {
		if m, found := metrics[key]; found {
			if percent, ok := asPercent(m.Value); ok {
				return percent, key, true
			}
		}
	}
	if len(wanted) > 0 {
		return 0, "", false
	}
	best := noTier
	for _, k := range slices.Sorted(maps.Keys(metrics)) {
		// Among equals the shortest, which is the plainest: test_accuracy before test_binary_accuracy.
		t := tier(k)
		if t > best || t == noTier || t == best && len(k) >= len(key) {
			continue
		}
		if v, good := asPercent(metrics[k].Value); good {
			best, percent, key, ok = t, v, k, true
		}
	}
	return percent, key, ok
}

// asPercent reads an accuracy: up to 1 it is a fraction, up to 100 a percentage already, anything else is none.
func asPercent(a float64) (float64, bool) {
	switch {
	case a > 0 && a <= 1:
		return 100 * a, true
	case a > 1 && a <= 100:
		return a, true
	}
	return 0, false
}

// tier tells from a metric's key what kind of accuracy it is, noTier if none. Accuracies that mean something else
// (balanced, top-k) are none: a ratio of them could not be compared with others.
func tier(key string) int {
	words := strings.FieldsFunc(strings.ToLower(key), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	has := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	isAccuracy := has("accuracy", "acc", "testacc", "valacc")
	if !isAccuracy || has("balanced", "top", "top2", "top3", "top5", "top10", "k", "emissions", "per", "loss", "error") {
		return noTier
	}
	switch {
	case has("test", "testing", "heldout", "holdout"):
		return tierTest
	case has("training", "train"):
		return tierTraining
	case has("val", "valid", "validation", "dev"):
		return tierValidation
	case has("eval", "evaluation") || strings.HasSuffix(key, "accuracy_score"):
		return tierEvaluation
	}
	return tierBare
}
