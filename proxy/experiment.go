package proxy

import (
	"context"
	"strings"
	"time"

	"mlflow-emissions-proxy/mlflow"
)

// wordWindow is for how long an experiment's tag is taken as it was read last: a sweep ends many runs.
const wordWindow = time.Minute

// readForFigures reads a run, with its experiment's word on which metric is its accuracy, unless it has its own.
func (p *Proxy) readForFigures(ctx context.Context, caller mlflow.Caller, id string) (mlflow.Run, error) {
	run, err := p.client.Run(ctx, caller, id)
	if err != nil || run.Tags[tagAccuracyMetric] != "" || run.ExperimentID == "" || len(run.Metrics) == 0 {
		return run, err
	}
	if word := p.wordOf(ctx, caller, run.ExperimentID); word != "" {
		run.Tags[tagAccuracyMetric] = word
	}
	return run, nil
}

// wordOf returns an experiment's tag emissions.accuracy_metric, empty if it has none or cannot be read. What one
// caller may read is not told to another.
func (p *Proxy) wordOf(ctx context.Context, caller mlflow.Caller, experiment string) string {
	key := caller.Key() + " " + experiment
	if word, known := p.words.Get(key); known {
		return word.(string)
	}
	e, err := p.client.Experiment(ctx, caller, experiment)
	if err != nil {
		p.log.Debug("cannot read an experiment's tags; the usual names of accuracy are taken", "experiment", experiment, "error", err)
		if !refused(err) && !unknownCaller(err) {
			return "" // the next run asks again
		}
	}
	p.words.SetDefault(key, e.Tags[tagAccuracyMetric])
	return e.Tags[tagAccuracyMetric]
}

// forgetWords makes what a client says about an experiment hold at once.
func (p *Proxy) forgetWords(path string) {
	if strings.HasSuffix(path, "/experiments/set-experiment-tag") {
		p.words.Flush()
	}
}
