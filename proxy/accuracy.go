package proxy

import (
	"cmp"
	"maps"
	"math"
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

// candidate is a metric that may be a run's accuracy.
type candidate struct {
	key     string
	percent float64
	tier    int
	rank    int // how the key says it, within its tier: plain accuracy, another name for it, 1 - error
	set     int // number of the evaluation set, -1 for none
}

// accuracy picks a run's accuracy as a percentage, and the key that it stands under. wanted are keys that the user
// named, first match wins; without them the usual names are tried in the order of the tiers. What counts is the value
// that MLflow shows, which is that of the largest step.
func accuracy(run mlflow.Run, wanted []string) (percent float64, key string, ok bool) {
	for _, key := range wanted {
		m, found := run.Metrics[key]
		if !found {
			continue
		}
		if c, isError := errorRate(run, m); isError {
			return c.percent, key, c.percent > 0
		}
		if percent, ok := asPercent(m.Value); ok {
			return percent, key, true
		}
	}
	if len(wanted) > 0 {
		return 0, "", false
	}
	best := candidate{tier: noTier}
	for _, k := range slices.Sorted(maps.Keys(run.Metrics)) {
		if c, good := candidateOf(run, run.Metrics[k]); good && c.before(best) {
			best = c
		}
	}
	return best.percent, best.key, best.tier != noTier
}

// mayBeAccuracy says, by the key alone, whether a metric may be a run's accuracy. It is so where candidateOf finds one.
func mayBeAccuracy(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "acc") || strings.Contains(key, "score") || strings.HasSuffix(key, "error")
}

// before orders candidates. Of several evaluation sets the last counts, as for the early stopping of XGBoost: the
// first is often the training data. Among equals it is the shortest key, which is the plainest.
func (c candidate) before(o candidate) bool {
	return cmp.Or(c.tier-o.tier, c.rank-o.rank, o.set-c.set, len(c.key)-len(o.key), strings.Compare(c.key, o.key)) < 0
}

// candidateOf reads a metric as an accuracy, if it surely is one.
func candidateOf(run mlflow.Run, m mlflow.Metric) (candidate, bool) {
	if c, isError := errorRate(run, m); isError {
		return c, c.percent > 0
	}
	c := candidate{key: m.Key, tier: noTier, set: -1}
	var good bool
	if c.percent, good = asPercent(m.Value); !good {
		return c, false
	}
	switch {
	case isScore(run, m.Key):
		_, rest, _ := strings.Cut(m.Key, "_score")
		c.tier, c.set, _ = tierOf(words(rest), nil)
		c.rank = 1
		if c.tier == tierBare {
			c.tier = tierEvaluation
		}
	case isEvaluated(run, m.Key):
		c.tier, c.set, _ = tierOf(words(strings.TrimSuffix(m.Key, accuracyScore)), nil)
		if c.tier == tierBare {
			c.tier = tierEvaluation
		}
	default:
		var known bool
		c.tier, c.set, known = tierOf(words(m.Key), accuracyWords)
		if !known {
			return c, false
		}
		// sklearn's name for it: scikit-learn's metrics and mlflow.models.evaluate use it.
		if c.tier == tierBare && strings.Contains(m.Key, accuracyScore) {
			c.tier = tierEvaluation
		}
	}
	return c, true
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

// accuracyWords name the accuracy itself.
var accuracyWords = []string{"accuracy", "acc"}

// setWords say on what data something was measured.
var setWords = map[string]int{
	"test": tierTest, "testing": tierTest, "tst": tierTest, "heldout": tierTest, "holdout": tierTest,
	"eval": tierEvaluation, "evaluation": tierEvaluation,
	"val": tierValidation, "valid": tierValidation, "validation": tierValidation, "dev": tierValidation, "cv": tierValidation,
	"train": tierTraining, "training": tierTraining,
}

// plainWords may stand beside the others without changing what is meant. A key with any other word is no accuracy: it
// may be that of a class, a slice, a baseline, or of another kind (balanced, top-k), which could not be compared with
// others'.
var plainWords = []string{
	"binary", "categorical", "sparse", "multiclass", "micro", "top1", "score", "metric", "metrics", "model",
	"epoch", "step", "best", "final", "last", "latest", "mean", "avg", "average", "overall", "total", "global",
	"on", "of", "the", "set", "data", "dataset", "unknown", "x", "y", "df", "features",
}

// tierOf tells from the words of a key on what data it was measured; set is the number after that word, as in valid_1,
// -1 for none. known is false where the key has none of the words that name its subject, or any that is not known.
func tierOf(words, subjects []string) (tier, set int, known bool) {
	tier, set = tierBare, -1
	named, afterSet := len(subjects) == 0, false
	known = true
	for i, w := range words {
		t, isSet := setWords[w]
		switch {
		case isSet && (tier == tierBare || t == tierTraining || tier != tierTraining && t < tier):
			tier = t
		case isSet:
		case slices.Contains(subjects, w):
			named = true
		case len(subjects) > 0 && strings.HasSuffix(w, "acc") && isSetWord(strings.TrimSuffix(w, "acc")): // valacc
			tier, named = setWords[strings.TrimSuffix(w, "acc")], true
		case isNumber(w) && afterSet:
			set = number(w)
		case w == "top" && i+1 < len(words) && words[i+1] == "1", w == "1" && i > 0 && words[i-1] == "top":
		case !slices.Contains(plainWords, w):
			known = false
		}
		afterSet = isSet
	}
	return tier, set, known && named
}

func isSetWord(w string) bool {
	_, ok := setWords[w]
	return ok
}

func isNumber(w string) bool { return strings.Trim(w, "0123456789") == "" }

// number is a small number's value; what is too long to be one counts as the largest.
func number(w string) int {
	n := 0
	for _, d := range w {
		n = min(10*n+int(d-'0'), math.MaxInt32)
	}
	return n
}

// words cuts a key at its signs and before its capitals: test_MulticlassAccuracy is of three.
func words(key string) []string {
	var b strings.Builder
	runes := []rune(key)
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsUpper(runes[i-1]) && unicode.IsLower(runes[i+1])) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// accuracyScore is what scikit-learn, and mlflow.models.evaluate after it, call accuracy.
const accuracyScore = "accuracy_score"

// isEvaluated says whether a key is mlflow.models.evaluate's, with the user's metric_prefix in front: then the number
// of examples stands under the same prefix, whatever it is.
func isEvaluated(run mlflow.Run, key string) bool {
	prefix, ok := strings.CutSuffix(key, accuracyScore)
	_, counted := run.Metrics[prefix+"example_count"]
	return ok && counted && !slices.Contains(words(prefix), "balanced")
}

// isScore says whether a key is what scikit-learn's autolog calls the result of a model's score, and that is its
// accuracy: LogisticRegression_score_X_test, with the name of the variable at its end. It is for classifiers, and
// autolog shows that it is for this one: it scored the training data as well, with the very value of their accuracy.
// A search, or a model with CV in its name, scores by what the user chose: there a value of 1 shows nothing.
func isScore(run mlflow.Run, key string) bool {
	estimator, rest, ok := strings.Cut(key, "_score")
	if !ok || estimator == "" || !unicode.IsUpper(rune(estimator[0])) || strings.ContainsAny(estimator, "_-/. ") || rest == "" || rest[0] != '_' && rest[0] != '-' {
		return false
	}
	score, scored := run.Metrics["training_score"]
	fitted, classified := run.Metrics["training_"+accuracyScore]
	_, regressed := run.Metrics["training_r2_score"]
	if !scored || !classified || regressed || math.Abs(score.Value-fitted.Value) > 1e-12 {
		return false
	}
	return !strings.HasSuffix(estimator, "CV") || score.Value < 1
}

// errorRate reads a metric that is surely the share of wrong answers, as XGBoost and LightGBM log it, as the accuracy
// that it leaves.
func errorRate(run mlflow.Run, m mlflow.Metric) (candidate, bool) {
	c := candidate{key: m.Key, tier: noTier, rank: 2, set: -1}
	set, name := "", m.Key
	if i := strings.LastIndexByte(m.Key, '-'); i >= 0 {
		set, name = m.Key[:i], m.Key[i+1:]
	}
	switch name {
	case "merror", "multi_error", "binary_error": // names that nothing else has
	case "error":
		// Of XGBoost, for two classes; many other things are called so, too. Its objective is among the parameters.
		if set == "" || !strings.HasPrefix(run.Params["objective"], "binary:") {
			return c, false
		}
	default:
		return c, false
	}
	var known bool
	if c.tier, c.set, known = tierOf(words(set), nil); !known {
		return c, false
	}
	// A NaN that was sent bare is 0 for MLflow, at time 0; of an error, that is not perfection.
	if m.Value > 0 && m.Value < 1 || m.Value == 0 && m.Timestamp > 0 {
		c.percent = 100 * (1 - m.Value)
	}
	return c, true
}
