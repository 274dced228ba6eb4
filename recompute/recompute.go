// Package recompute works out again what finished runs emitted, from the energy that they keep: what if they had run
// elsewhere, or at another time?
package recompute

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/mlflow"
)

// Tracking is what is needed of an MLflow server.
type Tracking interface {
	SearchRuns(ctx context.Context, caller mlflow.Caller, q mlflow.RunQuery) ([]mlflow.Run, string, error)
	LogBatch(ctx context.Context, caller mlflow.Caller, body []byte) error
}

// Find returns the id of an experiment that is given by its name or its id.
func Find(ctx context.Context, server *mlflow.Client, caller mlflow.Caller, nameOrID string) (string, error) {
	e, err := server.FindExperiment(ctx, caller, nameOrID)
	var refused *mlflow.APIError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
		return "", fmt.Errorf("--experiment: the server has none with the name or id %q", nameOrID)
	}
	return e.ID, err
}

// Question is what to work out.
type Question struct {
	Supply   *carbon.Supply
	Feed     *carbon.Feed  // that Supply follows; nil: none
	Relocate bool          // the supply is that of a place, which the runs are then said to have run at
	KeepPUE  bool          // each run keeps the overhead that it had
	Shift    time.Duration // by how much later the runs would have run
}

// Answer is one run's figures as they are and as they would be. Why says why there are none; it is empty where there are.
type Answer struct {
	Run      mlflow.Run
	Why      string
	KWh      float64 // of the machine, before PUE
	PUE      float64
	Was, Now carbon.Mass
	Factors  []carbon.Factor // that Now comes from
	Even     bool            // the run keeps no energy over time, and is taken to have used it evenly

	training, inference, wasTraining, wasInference carbon.Mass
	inferred                                       bool
	supply                                         *carbon.Supply
	relocate                                       bool
}

// Ask works the figures of an experiment's runs out anew. It changes nothing.
func Ask(ctx context.Context, server Tracking, caller mlflow.Caller, experimentID string, q Question) ([]Answer, error) {
	runs, _, err := server.SearchRuns(ctx, caller, mlflow.RunQuery{ExperimentIDs: []string{experimentID}, OrderBy: []string{"attributes.start_time ASC"}})
	if err != nil {
		return nil, err
	}
	var ledgers []carbon.Ledger
	var answers []Answer
	for _, r := range runs {
		a, l := read(r, q)
		answers, ledgers = append(answers, a), append(ledgers, l)
	}
	if q.Feed != nil {
		for _, w := range windows(ledgers) {
			if err := q.Feed.Fetch(ctx, w.Start, w.End); err != nil {
				return nil, fmt.Errorf("--live: %w", err)
			}
		}
	}
	for i := range answers {
		if answers[i].Why == "" {
			answers[i].reckon(ledgers[i])
		}
	}
	return answers, nil
}

// read takes from a run what it keeps: its figures and its energy over time, moved by the question's shift.
func read(r mlflow.Run, q Question) (Answer, carbon.Ledger) {
	a := Answer{Run: r, relocate: q.Relocate}
	switch {
	case r.Tags[tagVersion] == "":
		a.Why = "not metered"
	case strings.HasPrefix(r.Tags[tagStatus], "unmeasured"):
		a.Why = r.Tags[tagStatus]
	case r.Status == "RUNNING" || r.Status == "SCHEDULED":
		a.Why = "not over yet"
	}
	energy, ok := r.Metrics[metricEnergy]
	if a.Why == "" && (!ok || !(energy.Value >= 0) || math.IsInf(energy.Value, 0)) {
		a.Why = "it keeps no energy"
	}
	if a.Why != "" {
		return a, nil
	}
	a.KWh = energy.Value
	a.PUE = q.Supply.PUE()
	if own, err := strconv.ParseFloat(r.Tags[tagPUE], 64); q.KeepPUE && err == nil && own >= 1 && !math.IsInf(own, 0) {
		a.PUE = own
	}
	a.supply = q.Supply.WithPUE(a.PUE)
	a.before()
	l, err := carbon.DecodeLedger(r.Tags[tagSlices])
	if err != nil || l.KWh() > a.KWh*(1+1e-6) { // not of this energy
		l = carbon.Ledger{}
	}
	// What is not in the slices, of which an old run has none, was used evenly: no more is known of it.
	if rest := a.KWh - l.KWh(); rest > 1e-6*a.KWh {
		a.Even = true
		length := time.Duration(r.Metrics[metricDuration].Value * float64(time.Second))
		inference := 0.0
		if a.inferred && a.Was > 0 {
			inference = a.wasInference.Grams() / a.Was.Grams()
		}
		l[partTraining] = append(l[partTraining], carbon.Use{Start: r.Start, End: r.Start.Add(length), KWh: rest * (1 - inference)})
		if inference > 0 {
			l[partInference] = append(l[partInference], carbon.Use{Start: r.Start, End: r.Start.Add(length), KWh: rest * inference})
		}
	}
	for _, uses := range l {
		for i := range uses {
			uses[i].Start, uses[i].End = uses[i].Start.Add(q.Shift), uses[i].End.Add(q.Shift)
		}
	}
	return a, l
}

// before reads what the run is said to have emitted.
func (a *Answer) before() {
	value := func(key string) carbon.Mass { return carbon.Mass(a.Run.Metrics[key].Value) }
	_, a.inferred = a.Run.Metrics[metricInference]
	switch {
	case a.inferred:
		a.wasTraining, a.wasInference = value(metricTraining), value(metricInference)
	case a.isClients(metricEmissions):
		intensity, _ := strconv.ParseFloat(a.Run.Tags[tagIntensity], 64)
		pue, _ := strconv.ParseFloat(a.Run.Tags[tagPUE], 64)
		a.wasTraining = carbon.Intensity(intensity).Emitted(pue * a.KWh)
	default:
		a.wasTraining = value(metricEmissions)
	}
	a.Was = a.wasTraining + a.wasInference
}

// isClients says whether what stands under a name is the client's own.
func (a *Answer) isClients(key string) bool {
	return slices.Contains(strings.Split(a.Run.Tags[tagClientMetrics], ", "), key)
}

// reckon turns the energy into grams.
func (a *Answer) reckon(l carbon.Ledger) {
	for name, uses := range l {
		var sum carbon.Mass
		for _, u := range uses {
			for _, p := range a.supply.Cut(u.Start, u.End, u.KWh) {
				sum += a.supply.Emitted(p)
				a.Factors = append(a.Factors, p.Factor)
			}
		}
		if name == partInference {
			a.inference += sum
		} else {
			a.training += sum
		}
	}
	if len(a.Factors) == 0 { // no energy
		a.Factors = append(a.Factors, a.supply.At(a.Run.Start))
	}
	slices.SortStableFunc(a.Factors, func(x, y carbon.Factor) int { return x.Start.Compare(y.Start) })
	a.Now = a.training + a.inference
}

// window is a stretch of time.
type window struct{ Start, End time.Time }

// windows covers all uses by a few stretches: a provider is not asked anew for each run.
func windows(ledgers []carbon.Ledger) []window {
	var all []window
	for _, l := range ledgers {
		for _, uses := range l {
			for _, u := range uses {
				all = append(all, window{u.Start.Truncate(time.Hour), u.End.Truncate(time.Hour).Add(time.Hour)})
			}
		}
	}
	slices.SortFunc(all, func(a, b window) int { return a.Start.Compare(b.Start) })
	var joined []window
	for _, w := range all {
		if n := len(joined); n > 0 && w.Start.Sub(joined[n-1].End) < 24*time.Hour {
			if w.End.After(joined[n-1].End) {
				joined[n-1].End = w.End
			}
			continue
		}
		joined = append(joined, w)
	}
	return joined
}
